"""A measuring process loads only what its model needs, and reports an error in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distill.cost import measure, milliseconds, rate, row_of
from synthgen.errors import SynthgenError
from synthgen.results.measures import Quantiles


def test_a_process_that_measures_loads_nothing_heavy():
    """Imported packages would count in the measured peak memory, so a runtime is imported only when a model is opened
    with it.
    """
    program = "import sys, distill.cost, distill.evaluation.timing, distill.exporting.timing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "distill.exporting.timing" in loaded
    assert not loaded & {"torch", "pydantic", "pyarrow", "pandas", "onnxruntime", "llama_cpp", "yaml", "rich"}


def test_a_function_that_fails_is_one_line():
    with pytest.raises(SynthgenError, match=r"measuring failed: .*no function 'nonsense'") as caught:
        measure("distill.evaluation.timing:nonsense", {})
    assert "\n" not in caught.value.message


def test_numbers_of_a_child_are_a_row():
    measured = {"rows_per_second": 2, "answer_ms": milliseconds([0.001, 0.002, 0.003])}
    row = row_of(measured)
    assert row["rows_per_second"] == 2.0
    assert isinstance(row["answer_ms"], Quantiles)
    assert row["answer_ms"].p50 == pytest.approx(2.0)
    assert row["answer_ms"].p95 == pytest.approx(2.9)


def test_a_rate_counts_every_run():
    calls = []
    found = rate(lambda texts: calls.append(len(texts)), ["x"] * 20, 3)
    assert calls == [8, 20, 20, 20]
    assert found["rows_per_second"] > 0


def test_a_child_that_writes_many_warnings_does_not_wait_for_a_reader(tmp_path, monkeypatch):
    """Libraries warn on standard error. A pipe holds 64 KiB, and nobody reads it before the child ends."""
    (tmp_path / "talking.py").write_text(
        "import sys\ndef talk(arguments):\n    sys.stderr.write('a warning\\n' * 20_000)\n"
        "    sys.exit('the last line') if arguments['fails'] else None\n    return {'texts': ['done']}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert measure("talking:talk", {"fails": False})["texts"] == ["done"]
    with pytest.raises(SynthgenError) as caught:
        measure("talking:talk", {"fails": True})
    assert caught.value.message == "measuring failed: the last line"
