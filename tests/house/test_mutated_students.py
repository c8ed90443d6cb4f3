"""A finished student is damaged in many ways, and `distill export` refuses it in one line, or writes true files.

`test_mutated_files.py` damages any file of a run. Here the damaged files are those that an export reads.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from support.commands import files
from support.damaging import GOOD, cases, damaged, in_fork, in_process, preload
from support.mutations import PLACES

FORMATS = {"gguf": 300, "onnx": 24}  # each with the number of damaged files
PARTS = 6  # tests that share the damaged files


@pytest.fixture(scope="module")
def base(finished, tmp_path_factory) -> Path:
    """A folder with what an export reads of a finished run: the student and the curated rows."""
    folder = tmp_path_factory.mktemp("students")
    for name in ("student", "curated"):
        shutil.copytree(finished.run / name, folder / "run" / name, ignore=shutil.ignore_patterns("baseline"))
    return folder


def chosen(base: Path) -> list[tuple[str, str]]:
    """Pairs (file, way), in random order. Two of three are files of the student."""
    found = cases(base)
    return sorted(found, key=lambda case: Random(str(case)).random() * (1 if "student/" in case[0] else 2))


def written(run: Path, to: str) -> bool:
    return (run / "student" / to / "export.json").is_file()


def untrue(run: Path, to: str) -> list[str]:
    """What is wrong with an export that was written: figures that are no numbers, or a file that is missing."""
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
    return wrong + [f"no {name}" for name in named if not (folder / name).is_file()]


def test_some_damaged_students(base, tmp_path):
    """Some exports in this process."""
    shutil.copytree(base, tmp_path / "whole")
    code, output = in_process(["distill", "export", tmp_path / "whole/run", "--to", "gguf"], 60)
    assert code == 1, output  # 8 bits change the choice of a student with random weights, so the gate is not passed
    assert written(tmp_path / "whole/run", "gguf")
    assert untrue(tmp_path / "whole/run", "gguf") == []
    bad = []
    some = [case for case in chosen(base) if case[1] not in PLACES and "student/" in case[0]]
    some += [("run/student/tokenizer_config.json", "pipe"), ("run/student/model.safetensors", "link-to-device")]
    for path, way in some[-12:]:
        run = damaged(base, tmp_path / "copy", path, way)
        code, output = in_process(["distill", "export", run, "--to", "gguf"])
        if code not in GOOD or "Traceback" in output or untrue(run, "gguf"):
            bad.append((path, way, code, output[-300:]))
    assert bad == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("to", FORMATS)
def test_damaged_students_in_full(base, tmp_path, to, part):
    preload()
    folder, bad, counts = tmp_path / "copy", [], Counter()
    before = files(base)
    for path, way in chosen(base)[: FORMATS[to]][part::PARTS]:
        run = damaged(base, folder, path, way)
        inputs = {name: data for name, data in files(run.parent).items() if name in before}
        code, output = in_fork(["distill", "export", run, "--to", to], folder, 60)
        counts[code, "written" if written(run, to) else "not written"] += 1
        wrong = untrue(run, to)
        wrong += [f"{name} is changed" for name, data in inputs.items() if files(run.parent).get(name) != data]
        if code not in GOOD or "Traceback" in output or wrong:
            bad.append((path, way, code, wrong, output[-300:]))
        if written(run, to):
            print(f"accepted: {path} {way}")
    print(f"\n{to}: {sum(counts.values())} exports, {dict(counts)}")
    assert bad == []
