"""Two processes curate and are killed. No process is left, and the same command finishes with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from support.corpora import contents, corpus_of, curating, row
from support.killing import left_behind
from support.places import REPOSITORY

import synthgen
from synthgen import corpus, curation, durable
from synthgen.curation import shards
from synthgen.errors import RunChanged, UserError
from synthgen.recipe import dump_recipe
from synthgen.records import to_table

RECIPE = curating(select={"by": "spread", "rows": 500})
SHARD, SHARDS = 3000, 7  # a task gets shards until it has 8,192 rows: 3, 3 and 1 shards


def large(run: Path) -> Path:
    """A run of many short rows with copies, refusals and truncated rows. The run is made without a Python object for
    each row.
    """
    folder = run / "generated"
    corpus.claim(folder, {"test": "large"}, "test")
    texts = [f"It is {n} apples." for n in range(97)] + ["I'm sorry, but I can't help."]
    table = to_table([row(text, n, finish_reason="length" if n % 7 == 0 else "stop") for n, text in enumerate(texts)])
    draw = random.Random(5)
    names = []
    for number in range(SHARDS):
        names.append(f"train-{number:05d}")
        rows = table.take(pa.array([draw.randrange(len(texts)) for _ in range(SHARD)]))
        ids = pa.array([f"r{number * SHARD + n}" for n in range(SHARD)])
        prompts = [[{"role": "user", "content": str(draw.randrange(9000))}] for _ in range(SHARD)]
        rows = rows.set_column(0, rows.schema.field(0), ids)
        place = rows.schema.get_field_index("prompt")
        rows = rows.set_column(place, rows.schema.field(place), pa.array(prompts, rows.schema.field(place).type))
        corpus.commit(folder, names[-1], {"data": rows})
    facts = {"description": "", "task": "t", "strategy": "answer", "prompt_version": "v", "labels": [], "teachers": {}}
    corpus.finish(folder, "generated", {**facts, "sources": [], "counts": {"rows": SHARD * SHARDS}}, names)
    (run / "recipe.yaml").write_text(dump_recipe(RECIPE))
    return run


def command(run: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "synthgen.cli", "curate", str(run), "-q", "--workers", "2"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run, and its corpus as curated by one process."""
    run = large(tmp_path_factory.mktemp("large"))
    synthgen.curate(RECIPE, run, run / "curated", workers=1)
    return run, contents(run / "curated")


def test_a_node_that_does_not_see_the_folder_ends_the_command(tmp_path, monkeypatch):
    run, real = corpus_of(tmp_path / "run", [row("one"), row("two", 1)]), curation.judge_rows

    def elsewhere(work, services):
        real((replace(work[0], folder=tmp_path / "private"), work[1]), services)

    monkeypatch.setattr(curation, "judge_rows", elsewhere)
    monkeypatch.setattr("synthgen.curation.judge._VISIBLE", 0.1)
    with pytest.raises(UserError, match="private is not the same folder on every node of the cluster"):
        synthgen.curate(curating(), run)


def test_a_worker_of_an_earlier_command_writes_no_shard_of_other_rules(tmp_path, monkeypatch):
    """Another command begins the folder anew while a worker of this command still writes."""
    run = corpus_of(tmp_path, [row("one"), row("two", 1)])
    edited = shards._with

    def begun_anew(table, path):
        durable.write_json(run / "curated" / "inputs.json", {"curate": "other rules"})
        return edited(table, path)

    monkeypatch.setattr(shards, "_with", begun_anew)
    with pytest.raises(RunChanged, match="was begun anew by another command"):
        synthgen.curate(curating(), run)
    assert not list((run / "curated").rglob("*.parquet"))


@pytest.mark.parametrize(
    "waits",
    [
        ["judged-00000", "duplicates-pairs-00000", "select"],
        *(pytest.param([n], marks=pytest.mark.slow) for n in range(10)),
    ],
)
def test_killed_and_resumed_it_makes_the_same_bytes(whole, tmp_path, waits):
    """Kills the command once for each entry of `waits`. If the entry is a file name, the kill comes when this file
    exists. If the entry is a number, the kill comes after a time that grows with this number. Then the command runs to
    its end.
    """
    run, expected = whole
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    (copy / "generated").symlink_to(run / "generated")
    for wait in waits:
        process = command(copy)
        until = time.monotonic() + (0.5 + wait / 4 if isinstance(wait, int) else 120)
        while time.monotonic() < until and process.poll() is None:
            if isinstance(wait, str) and list((copy / "curated").rglob(f"{wait}.arrow")):
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert left_behind(process.pid, patience=20) == []
        assert not (copy / "curated" / "manifest.json").exists() or isinstance(wait, int)
    process = command(copy)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert contents(copy / "curated") == expected


def test_another_version_of_synthgen_does_not_finish_what_was_begun(whole, tmp_path, monkeypatch):
    """Two versions can judge rows differently, so shards and steps of two versions are never mixed."""
    run, expected = whole
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "recipe.yaml").write_text((run / "recipe.yaml").read_text())
    (copy / "generated").symlink_to(run / "generated")

    def killed(*arguments):
        raise KeyboardInterrupt

    def curate(code: str) -> None:
        monkeypatch.setattr("synthgen.version.code", lambda: code)
        synthgen.curate(RECIPE, copy, workers=1)

    with monkeypatch.context() as broken:
        broken.setattr("synthgen.curation.sweep", killed)
        with pytest.raises(KeyboardInterrupt):
            curate("old")
    judged = sorted((copy / "curated" / "steps").rglob("judged-*.arrow"))
    assert len(judged) == 3
    judged[0].write_bytes(b"what the old version found")
    with pytest.raises(UserError, match="damaged"):
        curate("old")  # the same version goes on with the files that are there
    curate("new")
    assert contents(copy / "curated") == expected
    curate("newest")  # a finished corpus is not made again
    assert contents(copy / "curated") == expected
