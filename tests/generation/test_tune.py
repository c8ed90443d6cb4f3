"""`tune` times a local teacher's batch sizes on the recipe's own questions."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.serving import write_recipe

import synthgen
from synthgen.errors import UserError
from synthgen.generation.tune import attempt, tune
from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.tables.engines import ENGINES
from synthgen.teachers.base import Reply, no_tick

SPEC = LogitsSpec("topk", k=4)


class Timed:
    """An engine that needs 10 ms for a batch at a batch size of up to 16, and 4 ms more for each unit of the batch size
    above 16. The engine raises an out-of-memory error for batches larger than `most`.
    """

    def __init__(self, most: int = 1 << 20) -> None:
        self.batch_size, self.most, self.seen = 1, most, []

    def sample(self, requests, spec, tick):
        self.seen.append((self.batch_size, len(requests)))
        if self.batch_size > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        batches = -(-len(requests) // self.batch_size)
        time.sleep(batches * (0.01 + 0.004 * max(0, self.batch_size - 16)))
        return [Reply("x", token_ids=[1, 2, 3], finish_reason="stop") for _ in requests]

    def close(self):
        self.seen.append("closed")


@pytest.fixture
def timed(monkeypatch):
    """`timed(most)` replaces the recipe's teacher by the timed engine."""

    def put(most: int = 1 << 20) -> Timed:
        engine = Timed(most)
        opens = replace(ENGINES["transformers"], opens=lambda section, options: engine)
        monkeypatch.setitem(ENGINES, "transformers", opens)
        return engine

    return put


def test_the_best_is_the_smallest_of_the_fastest(task, timed):
    engine = timed()
    found = tune(synthgen.load_recipe(task(40)), requests=64)
    assert [one.value for one in found.tried] == [4, 8, 16, 32, 64]
    assert found.best == 16
    assert found.requests == 64
    by = {one.value: one for one in found.tried}
    assert by[16].rows_per_second > by[4].rows_per_second > 0
    assert by[16].tokens_per_second == pytest.approx(3 * by[16].rows_per_second)
    assert engine.seen.pop() == "closed"
    assert {size for size, count in engine.seen if count == 64} == {4, 8, 16, 32, 64}


def test_out_of_memory_ends_the_trials_and_is_said(task, timed):
    timed(most=8)
    found = tune(synthgen.load_recipe(task(40)), requests=64)
    assert [(one.value, bool(one.problem)) for one in found.tried] == [(4, False), (8, False), (16, True)]
    assert found.best == 8
    timed(most=2)
    with pytest.raises(UserError, match="batch_size 4 fails: CUDA out of memory"):
        tune(synthgen.load_recipe(task(40)), requests=64)


def test_other_errors_are_not_taken_for_memory():
    engine = SimpleNamespace(batch_size=1, sample=lambda *a: (_ for _ in ()).throw(RuntimeError("shape mismatch")))
    request = Request("sample", [], {"temperature": 1.0, "top_p": 1.0}, teacher="t")
    with pytest.raises(RuntimeError, match="shape"):
        attempt(engine, 4, name="t", requests=[request], spec=SPEC, tick=no_tick)


def test_on_a_real_engine_nothing_is_written(task, tmp_path):
    path = task(10, generate={"num_generations": 1, "max_new_tokens": 4})
    before = sorted(tmp_path.rglob("*"))
    found = synthgen.tune(synthgen.load_recipe(path), requests=8)
    assert [one.value for one in found.tried] == [4, 8]
    assert all(one.tokens_per_second > 0 for one in found.tried)
    assert found.best in (4, 8)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_server_finds_its_own_number(tmp_path):
    path = write_recipe(tmp_path / "task", "http://127.0.0.1:1/v1")
    with pytest.raises(UserError, match="has no batch setting"):
        synthgen.tune(synthgen.load_recipe(path))
