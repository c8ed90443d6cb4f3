"""Runs in S3 have the same files as runs on a disk, whatever fails, and whenever a command is killed.

`make test-stores` runs these tests in an environment of their own.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from conftest import SECRET, command, objects, start
from support.corpora import contents, corpus_of, curating, row
from support.small import small_task, small_teacher

import distill
import synthgen
from synthgen.errors import UserError
from synthgen.recipe import dump_recipe
from synthgen.stores import lease

RECIPE = curating(duplicates=True, length={"min_words": 4})
# These files hold times, dates, or the name of the folder.
TIMED = ("log.jsonl", "report.html", "audit/", "training.json", "evaluation.json", "README.md", "ledger/", "cache/")


def same(disk: dict[str, bytes], store: dict[str, bytes]) -> list[str]:
    """The names of the files that differ. Files that hold times need only exist."""
    names = {name for name in disk if not name.startswith(".writer") and "cache/" not in name}
    missing = sorted(names ^ set(store))
    return missing + [n for n in sorted(names & set(store)) if not any(t in n for t in TIMED) and disk[n] != store[n]]


def made(folder: Path, rows: int = 12) -> Path:
    """A generated run with copies and short rows, and its recipe."""
    texts = [f"text number {n % 9} is here" if n % 4 else "short" for n in range(rows)]
    corpus_of(folder, [row(text, n, prompt=[{"role": "user", "content": f"q{n}"}]) for n, text in enumerate(texts)])
    (folder / "recipe.yaml").write_text(dump_recipe(RECIPE))
    return folder


def put(s3, folder: Path, name: str) -> str:
    for path, data in contents(folder).items():
        s3.pipe_file(f"bucket/{name}/{path}", data)
    return f"s3://bucket/{name}"


def test_a_whole_run_with_faults_equals_a_run_on_a_disk(s3, proxy, tmp_path):
    recipe = small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=12)
    args = ["synthgen", "run", recipe, "-q", "-o"]
    code, output = command([*args, tmp_path / "disk" / "first"], tmp_path / "a")
    assert code == 0, output

    def fault(method, path, number):
        return 503 if number % 5 == 0 else 0.3 if number % 7 == 0 else None

    proxy.fault = fault
    code, output = command([*args, "s3://bucket/runs/first"], tmp_path / "a")
    assert code == 0, output
    assert proxy.failed >= 10, proxy.requests
    assert same(contents(tmp_path / "disk" / "first"), objects(s3, "runs/first")) == []
    # another machine, with nothing in its cache, finds a finished run
    code, output = command([*args[:-2], "-o", "s3://bucket/runs/first"], tmp_path / "b")
    assert code == 0, output
    assert "already complete; nothing to do" in output
    assert str(tmp_path / "b") not in output  # messages name the URL
