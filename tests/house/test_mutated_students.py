"""A finished student is damaged in many ways, and `distill export` refuses it in one line, or writes correct files.

`test_mutated_files.py` damages any file of a run. In this module, the damaged files are the files that an export reads.
Half of the students are like those of older versions: their training.json does not state the hashes of the files. So
the damage reaches the code that reads a student.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.damaging import GOOD, cases, damaged, in_fork, in_process, preload
from support.mutations import PLACES

FORMATS = {"gguf": 300, "onnx": 24}  # number of damaged files for each format
PARTS = 6  # number of tests that share the damaged files
WEIGHTS = "run/student/model.safetensors"


@pytest.fixture(scope="module")
def base(finished, tmp_path_factory) -> Path:
    """A folder with the parts of a finished run that an export reads: the student and the curated rows."""
    folder = tmp_path_factory.mktemp("students")
    for name in ("student", "curated"):
        shutil.copytree(finished.run / name, folder / "run" / name, ignore=shutil.ignore_patterns("baseline"))
    return folder


@pytest.fixture(scope="module")
def older(base, tmp_path_factory) -> Path:
    """A copy of the folder `base` without the hashes of the student's files."""
    folder = shutil.copytree(base, tmp_path_factory.mktemp("older") / "base")
    path = folder / "run/student/training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}}))
    return folder


def chosen(base: Path) -> list[tuple[str, str]]:
    """Pairs (file, way), in random order. Pairs whose file belongs to the student tend to come first."""
    found = cases(base)
    return sorted(found, key=lambda case: Random(str(case)).random() * (1 if "student/" in case[0] else 2))


def written(run: Path, to: str) -> bool:
    return (run / "student" / to / "export.json").is_file()


def untrue(run: Path, to: str) -> list[str]:
    """The faults of an export that was written: figures that are not numbers, a missing file, or a student that differs
    from the trained one.
    """
    folder = run / "student" / to
    if not written(run, to):
        return []
    found = json.loads((folder / "export.json").read_text())
    wrong = [
        f"{name}: {measure} is {value}"
        for name, row in found["table"].items()
        for measure, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    named = [file["file"] for name, file in found["files"].items() if name != "student"]
    wrong += [f"no {name}" for name in named if not (folder / name).is_file()]
    hashes = json.loads((run / "student/training.json").read_text())["files"]
    return wrong + [
        f"{name} is another" for name, found in found["inputs"]["student"].items() if hashes.get(name, found) != found
    ]


def export(run: Path, to: str = "gguf") -> list[object]:
    return ["distill", "export", run, "--to", to]


def test_some_damaged_students(base, older, tmp_path):
    """Runs some exports in this process."""
    whole = shutil.copytree(base, tmp_path / "whole") / "run"
    code, output = in_process(export(whole), 60)
    assert code == 1, output  # 8-bit weights change the choices of a student with random weights, so the gate fails
    assert written(whole, "gguf")
    assert untrue(whole, "gguf") == []
    some = [case for case in chosen(base) if case[1] not in PLACES and "student/" in case[0]][-8:]
    refused = [("run/student/tokenizer_config.json", "pipe"), (WEIGHTS, "link-to-device"), (WEIGHTS, "no-tensors")]
    bad = []
    for number, (path, way) in enumerate([*some, *refused]):
        run = damaged(base if number % 2 else older, tmp_path / "copy", path, way)
        code, output = in_process(export(run))
        wrong = untrue(run, "gguf") + ["not refused"] * (code != 2 and (path, way) in refused)
        if code not in GOOD or "Traceback" in output or wrong:
            bad.append((path, way, code, wrong, output[-300:]))
    assert bad == []


def test_a_student_with_weights_that_are_no_numbers(older, tmp_path):
    folder = shutil.copytree(older, tmp_path / "copy")
    weights = load_file(folder / WEIGHTS)
    name = next(name for name in weights if "mlp" in name)
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    code, output = in_process(export(folder / "run"))
    assert (code, written(folder / "run", "gguf")) == (2, False)
    assert "not finite numbers" in output


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("to", FORMATS)
def test_damaged_students_in_full(base, older, tmp_path, to, part):
    preload()
    bad, counts = [], Counter()
    for number, (path, way) in enumerate(chosen(base)[: FORMATS[to]][part::PARTS]):
        run = damaged(base if number % 2 else older, tmp_path / "copy", path, way)
        code, output = in_fork(export(run, to), tmp_path, 60)
        counts[code, "written" if written(run, to) else "not written"] += 1
        wrong = untrue(run, to)
        if code not in GOOD or "Traceback" in output or wrong:
            bad.append((path, way, code, wrong, output[-300:]))
        if written(run, to):
            print(f"accepted: {path} {way}")
    print(f"\n{to}: {sum(counts.values())} exports, {dict(counts)}")
    assert bad == []
