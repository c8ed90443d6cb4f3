"""Small runs for tests of streams, and the reader of revision 199c186, which loads a whole corpus into memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import synthgen
from distill.data import Choice, Example
from distill.streaming.conversations import reader_of
from distill.streaming.stream import open_stream
from distill.streaming.tokencache import Reader
from support.small import small_runs, small_task, small_teacher
from synthgen import corpus, logits
from synthgen.teachers.transformers import LocalModel

LOGITS = {"sampled": {"kind": "sampled", "draws": 9}, "topk": {"kind": "topk", "k": 7, "temperature": 2.0}}
# Both samples of a seed are greedy, so the second sample is rejected as a copy. Rows of more than one word fail the
# check `length`, so training treats these rows as degenerate.
SECTIONS = {
    "seeds": 24,
    "generate": {"num_generations": 2, "max_new_tokens": 16, "shard_size": 8, "temperature": 0.0},
    "curate": {"answer": False, "truncated": False, "repetition": None, "length": {"max_words": 1}},
}


OWN = ("teacher", "a")
"""The names of the teachers that answer in these runs."""

_MADE = []  # holds the function `made`, which the tests of all files share


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """`made(name, **sections)` returns recipe and folder of a run. All runs have the same small teacher."""
    if not _MADE:
        _MADE.append(small_runs(tmp_path_factory.mktemp("stream")))
    return _MADE[0]


@pytest.fixture(scope="session")
def teacher(made) -> LocalModel:
    return LocalModel.open(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[0].teacher)


@pytest.fixture(scope="session")
def reader(teacher) -> Reader:
    return reader_of(teacher.tokens, OWN)


@pytest.fixture(scope="session")
def ensemble_run(tmp_path_factory):
    """`ensemble_run(logits)` returns recipe and folder of a run in which `a` answers, and `b` and
    `c` score its rows.
    """
    folder = tmp_path_factory.mktemp("several")
    models = {name: str(small_teacher(folder / f"teacher-{name}", seed)) for seed, name in enumerate("abc")}
    teachers = {name: {"model": model, "license": "Apache-2.0", "device": "cpu"} for name, model in models.items()}

    def make(kept: dict):
        task = small_task(
            folder / kept["kind"], folder / "teacher-a", seeds=16, logits={**kept, "score_by": ["b", "c"]}
        )
        values = yaml.safe_load(task.read_text())
        del values["teacher"]
        values |= {"teachers": teachers, "train": {**values["train"], "teacher": "a"}}
        task.write_text(yaml.safe_dump(values, sort_keys=False))
        recipe, run = synthgen.load_recipe(task), folder / f"run-{kept['kind']}"
        synthgen.generate(recipe, run)
        synthgen.curate(recipe, run)
        return recipe, run

    return make


MARKER = "#"


@pytest.fixture(scope="session")
def rationale_run(tmp_path_factory):
    """(recipe, run, teacher) of scored completions with a rationale, `MARKER` and an answer. One completion has no
    marker.
    """
    folder = tmp_path_factory.mktemp("rationales")
    task = small_task(
        folder / "task",
        small_teacher(folder / "teacher"),
        strategy="score",
        generate={"shard_size": 8, "answer_marker": MARKER},
        logits={"kind": "topk", "k": 9},
        curate={"answer": False, "truncated": False, "repetition": None, "length": None, "duplicates": False},
    )
    rows = [
        {"id": f"q{i}", "question": f"{i} + 1?", "completion": f"as {i} + 1 {MARKER} {i + 1}" if i else "no idea"}
        for i in range(24)
    ]
    (folder / "task" / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = yaml.safe_load(task.read_text())
    values["seeds"][0].pop("reference", None)
    task.write_text(yaml.safe_dump(values, sort_keys=False))
    recipe, run = synthgen.load_recipe(task), folder / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    return recipe, run, LocalModel.open(recipe.teacher)


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy of the run whose stored distributions are draws (`kind: sampled`). A test may change the copy."""
    whole = made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1]
    return Path(shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("cache")))


def opened(run: Path, reader: Reader, **more):
    return open_stream(run / "curated", reader, run / "cache", Choice(**{"max_length": 512, **more}))


# The whole corpus in memory, as in revision 199c186


def reference_rows(folder: Path, split: str, share: float = 1.0):
    found = []
    for part in ("data", "rejected"):
        for name, records in corpus.records(folder, part, split):
            for r in records:
                place = int.from_bytes(hashlib.blake2b(r.seed_id.encode(), digest_size=8).digest()) / 2**64
                teaches = {v["teaches"] for v in r.verdicts}
                if "nothing" not in teaches and (split != "train" or place < share):
                    found.append((name, r, teaches <= {"all"}))
    return [(record, kept) for _, record, kept in sorted(found, key=lambda f: (f[0], f[1].id))]


def reference(run: Path, render, choice: Choice, shaped=None):
    """(examples, metadata of their distributions, number of left-out rows by reason)."""
    folder, examples, meta = run / "curated", [], None
    left_out = {"too_long": 0, "degenerate": 0}
    for _, records in corpus.records(folder, "rejected", choice.split):
        left_out["degenerate"] += sum("nothing" in {v["teaches"] for v in r.verdicts} for r in records)
    root = run / "generated" / "logits"
    indices = []
    for name in choice.teachers or sorted(p.name for p in root.iterdir()):
        shards = [logits.read(path) for path in sorted((root / name).glob("*.parquet"))]
        indices.append({i: (shard, row) for shard in shards for row, i in enumerate(shard.ids)})
    for record, kept in reference_rows(folder, choice.split, choice.share):
        if choice.labels_alone and not kept:
            continue
        prompt, completion = render(record.prompt), list(record.token_ids or ())
        if len(prompt) + len(completion) > choice.max_length:
            left_out["too_long"] += 1
            continue
        target = None
        if not choice.labels_alone:
            places = [index[record.id] for index in indices]
            targets, metas = [shard.target(row) for shard, row in places], [shard.meta for shard, _ in places]
            target, meta = choice.merge(targets, metas) if choice.merge else (targets[0], metas[0])
        example = Example(record.id, prompt, completion, target, kept, tuple(record.prompt_token_ids or ()))
        example = shaped(record, example) if shaped else example
        if example is None:
            left_out["nothing_to_learn"] = left_out.get("nothing_to_learn", 0) + 1
        else:
            examples.append(example)
    return examples, meta, left_out


def reference_batch(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    epoch, number = divmod(step, -(-count // batch_size))
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
    return [int(i) for i in order[number * batch_size : (number + 1) * batch_size]]


def expand(examples) -> list[Example]:
    return [piece for example in examples for piece in (example, *example.also)]


def same(ours: Example, theirs: Example) -> None:
    """Asserts that all fields and all arrays of the distribution are equal and of equal types."""
    for name in ("id", "prompt", "completion", "kept", "teacher_prompt", "task", "parts"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert (a, type(a)) == (b, type(b)), name
    assert type(ours.target) is type(theirs.target)
    if ours.target is not None:
        for field in dataclasses.fields(ours.target):
            a, b = getattr(ours.target, field.name), getattr(theirs.target, field.name)
            assert a.dtype == b.dtype, field.name
            assert np.array_equal(a, b), field.name
    assert len(ours.also) == len(theirs.also)
    for a, b in zip(ours.also, theirs.also, strict=True):
        same(a, b)


def check_same(stream, wanted) -> None:
    examples, meta, left_out = wanted
    assert len(stream) == len(examples) > 3
    assert (stream.meta, stream.left_out) == (meta, left_out)
    assert stream.kept_count == sum(e.kept for e in examples)
    pieces = expand(examples)
    assert stream.tokens == sum(len(e.completion) for e in pieces)
    assert stream.longest == max(max(len(e.prompt), len(e.completion)) for e in pieces)
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    for ours, number in zip(stream.rows(order), order, strict=True):
        same(ours, examples[number])
