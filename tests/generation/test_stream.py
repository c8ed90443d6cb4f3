"""Local engines that take one request at a time: as many requests as possible run, no job waits for another job's
round, and errors stop the run.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from support.small import small_task, small_teacher

import synthgen
from synthgen import corpus
from synthgen.errors import GateDenied, TeacherError
from synthgen.tables.engines import ENGINES
from synthgen.teachers.base import Reply, StreamingTeacher
from synthgen.teachers.transformers import LocalModel

AT_ONCE = 5


class OneByOne:
    """A real model that is asked one request at a time. The seed `slow` is answered only after `until` other seeds were
    asked.
    """

    def __init__(self, model: LocalModel, slow: str = "", until: int = 2, fails: str = "", dies: str = "") -> None:
        self.model, self.slow, self.until, self.fails, self.dies = model, slow, until, fails, dies
        self.identity, self.can = model.identity, model.can
        self.sample, self.classify, self.score = model.sample, model.classify, model.score
        self.flying: list[str] = []
        self.most = 0
        self.beside: set[str] = set()  # seeds that were asked while the slow seed waited
        self.enough = asyncio.Event()
        self.closed = False

    async def start(self) -> int:
        return AT_ONCE

    async def ask(self, request, spec, tick) -> Reply:
        seed = f"q{request.question.split()[0]}"  # the question begins with the seed's number
        self.flying.append(seed)
        self.most = max(self.most, len(self.flying))
        if self.slow in self.flying:
            self.beside.add(seed)
        if len(self.beside) >= self.until:
            self.enough.set()
        await (asyncio.wait_for(self.enough.wait(), 60) if seed == self.slow else asyncio.sleep(0.001))
        self.flying.remove(seed)
        if seed == self.dies:
            raise TeacherError("the engine does not start again", "")
        if seed == self.fails:
            return Reply(failure=("engine_died", "it died"))
        return self.model.sample([request], spec, tick)[0]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small_teacher(tmp_path_factory.mktemp("teacher") / "small")


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """`run(teacher, **sections)` returns the folder of a run with this teacher. If `teacher` is None, the batch engine
    is used.
    """

    def generate(teacher: OneByOne | None, **sections) -> Path:
        recipe = small_task(tmp_path / "task", folder, 12, long=1, train=None, **sections)
        if teacher is not None:
            engine = replace(ENGINES["transformers"], opens=lambda section, options: teacher)
            monkeypatch.setitem(ENGINES, "transformers", engine)
        else:
            monkeypatch.undo()
        name = "plain" if teacher is None else "stream"
        return synthgen.generate(synthgen.load_recipe(recipe), tmp_path / name).folder

    return generate


@pytest.fixture
def model(folder) -> LocalModel:
    from synthgen.tables.engines import TeacherSection

    return LocalModel.open(TeacherSection(model=str(folder), batch_size=4, device="cpu", license="Apache-2.0"))


def rows(folder: Path) -> list[tuple]:
    return [(r.id, r.text, tuple(r.token_ids)) for _, found in corpus.records(folder) for r in found]


def test_the_rows_are_those_of_the_batch_engine_and_in_their_order(run, model):
    teacher = OneByOne(model, slow="q3")
    assert isinstance(teacher, StreamingTeacher)
    assert not isinstance(model, StreamingTeacher)
    streamed, plain = run(teacher), run(None)
    assert rows(streamed) == rows(plain)
    assert len(rows(streamed)) == 22
    assert corpus.manifest(streamed)["counts"]["failures"] == 2  # the two samples of the seed that is too long
    names = [sorted(p.relative_to(f) for p in f.glob("*/**/*.parquet")) for f in (streamed, plain)]
    assert names[0] == names[1]
    assert teacher.closed


def test_it_is_kept_full_and_a_slow_answer_holds_nobody_up(run, model):
    teacher = OneByOne(model, slow="q1", until=9)  # nine seeds are more than a shard, which has three seeds
    run(teacher)
    assert teacher.most == AT_ONCE
    assert len(teacher.beside) >= 9


def test_strategies_of_several_rounds_run_by_themselves(run, model):
    teacher = OneByOne(model)
    kept = run(teacher, strategy="vote", steps={"candidates": 3}, generate={"max_new_tokens": 4, "shard_size": 6})
    counts = corpus.manifest(kept)["counts"]
    assert counts["rows"] + counts["failures"] >= 12


def test_too_many_failures_stop_it(run, model):
    generate = {"num_generations": 2, "max_new_tokens": 4, "shard_size": 6, "max_failures": 3}
    with pytest.raises(GateDenied, match="4 requests failed"):
        run(OneByOne(model, fails="q5"), generate=generate)


def test_an_engine_that_gives_up_ends_the_run_and_is_closed(run, model):
    teacher = OneByOne(model, dies="q7", slow="q3")
    with pytest.raises(TeacherError, match="does not start again"):
        run(teacher)
    assert teacher.closed
