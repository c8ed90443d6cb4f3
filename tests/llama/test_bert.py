"""llama.cpp loads a BERT classifier that was exported as GGUF, and gives the same tokens and labels."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.small import bert_run

import distill
from distill.exporting.running import open_encoder
from distill.students.encoder import Encoder
from synthgen.teachers.encoder import token_ids

TEXTS = [
    "Where is my parcel?",
    "my card was charged twice",
    "LOST apps, a-b'c",
    "càb 中 nobody knows",
    "",
    "lost " * 60,
    "the\tapp\ncrashes",
    "my [SEP] bill",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = bert_run(tmp_path_factory.mktemp("bert"))
    distill.export(run, "gguf")
    return run


def test_the_same_probabilities(run):
    student, folder = Encoder.load(run / "student"), run / "student" / "gguf"
    expected = np.log(student.predict(TEXTS))
    assert np.abs(expected - np.log(open_encoder("llama.cpp", folder / "model-f16.gguf")(TEXTS))).max() < 1e-3
    assert np.abs(expected - np.log(open_encoder("llama.cpp", folder / "model-q8_0.gguf")(TEXTS))).max() < 0.05


def test_the_same_tokens(run):
    import llama_cpp

    expected = token_ids(Encoder.load(run / "student").tokenizer, TEXTS)
    path = run / "student" / "gguf" / "model-f16.gguf"
    model = llama_cpp.Llama(str(path), embedding=True, n_ctx=24, verbose=False)
    assert [model.tokenize(text.encode()) for text in TEXTS] == expected, "as the program in the card calls it"


def test_the_table_of_the_export(run):
    result = json.loads((run / "student" / "gguf" / "export.json").read_text())
    print(result["table"])
    assert result["passed"]
    for row in result["table"].values():
        assert row["text_ms"]["p50"] > 0
        assert row["peak_rss_bytes"] > 1e6
    for name in ("GGUF, float16", "GGUF, q8_0"):
        assert result["files"][name]["runtime"] == "llama.cpp"
        assert result["table"][name]["agreement"] >= 0.99


def test_the_program_in_the_card_runs(run):
    card = (run / "student" / "gguf" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=run / "student" / "gguf")
    assert done.returncode == 0, done.stderr
    printed = dict(re.findall(r"'(\w+)': np\.float64\(([^)]+)\)", done.stdout))
    expected = Encoder.load(run / "student").predict(["a text"])[0]
    assert list(printed) == Encoder.load(run / "student").labels
    assert np.allclose([float(v) for v in printed.values()], expected, atol=0.05)
