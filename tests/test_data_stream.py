"""Training data as a stream: the rows, batches and errors of the whole corpus in memory, from a cache that is sound."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small import CLASSES, small_encoder, small_runs, sorting_task
from test_ensemble import run as ensemble_run  # noqa: F401  (a fixture)
from test_rationale import MARKER
from test_rationale import made as rationale_run  # noqa: F401  (a fixture)

import synthgen
from distill import columns, segment
from distill.batches import Ahead, Order
from distill.data import Example
from distill.ensemble import Merge
from distill.rationale import shape
from distill.stream import Choice, open_stream
from distill.tokencache import Reader, from_messages, rendering
from synthgen import corpus, logits
from synthgen.errors import CorpusError
from synthgen.records import DEGENERATE
from synthgen.teachers.transformers import LocalModel
from synthgen.training import RationaleSection

LOGITS = {"sampled": {"kind": "sampled", "draws": 9}, "topk": {"kind": "topk", "k": 7, "temperature": 2.0}}
# Both samples of a seed are greedy: the second is rejected as a copy. Rows of two words are degenerate.
SECTIONS = {
    "seeds": 24,
    "generate": {"samples": 2, "max_new_tokens": 16, "shard_size": 8, "temperature": 0.0},
    "curate": {"answer": False, "truncated": False, "repetition": None, "min_words": None, "max_words": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_runs(tmp_path_factory.mktemp("stream"))


@pytest.fixture(scope="module")
def teacher(made) -> LocalModel:
    return LocalModel.open(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[0].teacher)


@pytest.fixture(scope="module")
def reader(teacher) -> Reader:
    return from_messages(rendering(teacher.tokenizer), teacher.identity["tokenizer"])


@pytest.fixture
def run(made, tmp_path) -> Path:
    """A copy of the run with draws, to change."""
    whole = made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1]
    return Path(shutil.copytree(whole, tmp_path / "run", ignore=shutil.ignore_patterns("cache")))


def opened(run: Path, reader: Reader, **more):
    return open_stream(run / "curated", reader, run / "cache", Choice(**{"max_length": 512, **more}))


# The whole corpus in memory: what revision 199c186 did


def reference_rows(folder: Path, split: str, share: float = 1.0):
    found = []
    for part in ("data", "rejected"):
        for name, records in corpus.records(folder, part, split):
            for r in records:
                place = int.from_bytes(hashlib.blake2b(r.seed_id.encode(), digest_size=8).digest()) / 2**64
                if not DEGENERATE & {v["check"] for v in r.verdicts} and (split != "train" or place < share):
                    found.append((name, r, part == "data"))
    return [(record, kept) for _, record, kept in sorted(found, key=lambda f: (f[0], f[1].id))]


def reference(run: Path, render, choice: Choice, shaped=None):
    """(examples, metadata, rows left out)."""
    folder, examples, meta = run / "curated", [], {}
    left_out = {"longer than max_length": 0, "degenerate": 0}
    for _, records in corpus.records(folder, "rejected", choice.split):
        left_out["degenerate"] += sum(bool(DEGENERATE & {v["check"] for v in r.verdicts}) for r in records)
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
            left_out["longer than max_length"] += 1
            continue
        target = None
        if not choice.labels_alone:
            places = [index[record.id] for index in indices]
            targets, metas = [shard.target(row) for shard, row in places], [shard.meta for shard, _ in places]
            target, meta = choice.merge(targets, metas) if choice.merge else (targets[0], metas[0])
        example = Example(record.id, prompt, completion, target, kept, tuple(record.prompt_token_ids or ()))
        example = shaped(record, example) if shaped else example
        if example is None:
            left_out["nothing to learn from"] = left_out.get("nothing to learn from", 0) + 1
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
    """Every field is equal, and of one type; so is every array of the distribution."""
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


# The same rows


CHOICES = {
    "all": {},
    "share": {"share": 0.5},
    "shorter": {"max_length": -1},  # than the longest rows, and as long as the next
    "labels alone": {"labels_alone": True},
    "held out": {"split": "test", "share": 0.3},  # a share is of the training seeds
}


@pytest.mark.parametrize("kind", list(LOGITS))
@pytest.mark.parametrize("name", list(CHOICES))
def test_the_rows_are_those_of_the_corpus_in_memory(made, teacher, reader, kind, name):
    _, run = made(kind, logits=LOGITS[kind], **SECTIONS)
    choice = Choice(**{"max_length": 512, **CHOICES[name]})
    whole = reference(run, teacher.render, Choice(512, split=choice.split))[0]
    if name == "shorter":
        lengths = sorted({len(e.prompt) + len(e.completion) for e in whole})
        choice = dataclasses.replace(choice, max_length=lengths[-2])
    wanted = reference(run, teacher.render, choice)
    check_same(open_stream(run / "curated", reader, run / "cache", choice), wanted)
    assert len(columns.shards(run / "curated", choice.split)) > 1
    assert any(not e.kept for e in whole), "the test needs rejected rows"
    assert wanted[2]["degenerate"] > 0, "and degenerate ones"
    assert (len(wanted[0]) < len(whole)) == (name in ("share", "shorter", "labels alone"))


@pytest.mark.parametrize("kind", list(LOGITS))
def test_several_teachers(ensemble_run, kind):  # noqa: F811
    recipe, run = ensemble_run({**LOGITS[kind], "score_by": ["b", "c"]}, teacher="a")
    teacher = LocalModel.open(recipe.teachers["a"])
    reader = from_messages(rendering(teacher.tokenizer), teacher.identity["tokenizer"])
    merges = [Merge(("a", "c"), "mean", "test", (0.7, 0.3)), Merge(("c", "b", "a"), "mean", "test", (0.2, 0.3, 0.5))]
    merges += [Merge(("a", "b", "c"), "pool", "agreement")] if kind == "topk" else []
    for choice in [Choice(512, teachers=m.names, merge=m) for m in merges] + [Choice(512, teachers=("b",))]:
        stream = open_stream(run / "curated", reader, run / "cache", choice)
        check_same(stream, reference(run, teacher.render, choice))
    with pytest.raises(CorpusError, match="logits of 3 teachers"):
        opened(run, reader)
    with pytest.raises(CorpusError, match="no logits of a teacher 'x'"):
        opened(run, reader, teachers=("x",))


@pytest.mark.parametrize("mode", ["step_by_step", "dropped"])
def test_rationales(rationale_run, mode):  # noqa: F811
    recipe, run, teacher = rationale_run
    section = recipe.train.model_copy(update={"rationale": RationaleSection(mode=mode, explain="Why: ")})
    shape_of = shape(section, teacher, MARKER)

    def shaped(row, example: Example) -> Example | None:
        return None if row.id < "3" else shape_of(row, example)

    reader = from_messages(rendering(teacher.tokenizer), f"{teacher.identity['tokenizer']} {mode}", shaped)
    choice = Choice(256, labels_alone=mode == "dropped")
    wanted = reference(run, teacher.render, choice, shaped)
    check_same(open_stream(run / "curated", reader, run / "cache", choice), wanted)
    assert wanted[2]["nothing to learn from"] > 0
    assert any(e.also for e in wanted[0]) == (mode == "step_by_step")


def test_numbers_beside_the_tokens(tmp_path):
    task = sorting_task(tmp_path / "task", small_encoder(tmp_path / "teacher"), 60)
    run = synthgen.generate(synthgen.load_recipe(task), tmp_path / "run").parent
    synthgen.curate(synthgen.load_recipe(task), run)
    texts = {r.id: r.prompt[-1]["content"] for r, _ in reference_rows(run / "curated", "train")}
    reader = Reader(
        "words",
        (columns.PROMPT, columns.LABEL_PROBS),
        prompts=lambda rows: [[len(word) for word in row.prompt[-1]["content"].split()] for row in rows],
        values=lambda rows: [np.array(row.label_probs, np.float32) for row in rows],
    )
    stream = open_stream(run / "curated", reader, run / "cache", Choice(5, labels_alone=True))
    wanted = [(r, kept) for r, kept in reference_rows(run / "curated", "train") if len(texts[r.id].split()) <= 5]
    assert stream.left_out["longer than max_length"] > 0
    for stored, (record, kept) in zip(stream.stored(range(len(stream))), wanted, strict=True):
        assert (stored.example.id, stored.example.kept) == (record.id, kept)
        assert stored.example.prompt == [len(word) for word in texts[record.id].split()]
        assert stored.values.tolist() == list(record.label_probs)
        assert len(stored.values) == len(CLASSES)


# The same batches


def test_a_batch_is_a_function_of_the_step():
    for count, size, seed in ((50, 8, 0), (7, 16, 3), (33, 4, 1)):
        order = Order(count, size, seed)
        for step in (*range(20), 500, 3):
            assert order.rows(step) == reference_batch(step, count, size, seed)
    assert order.permutation(4) is order.permutation(4)


def test_tokens_of_some_steps(made, reader):
    stream = opened(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1], reader)
    order = Order(len(stream), 5, 2)
    for steps in (0, 1, 3, order.steps_per_epoch, order.steps_per_epoch + 2, 3 * order.steps_per_epoch):
        wanted = sum(len(e.completion) for step in range(steps) for e in stream.rows(order.rows(step)))
        assert stream.completion_tokens(order, steps) == wanted


def test_a_process_reads_the_distributions_of_its_own_rows(made, reader):
    stream = opened(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1], reader)
    numbers = Order(len(stream), 7, 0).rows(1)
    whole = stream.rows(numbers)
    for rank in range(3):
        batch = stream.batch(numbers, rank, 3)
        for place, (ours, theirs) in enumerate(zip(batch, whole, strict=True)):
            has = place == 0 or place % 3 == rank
            same(ours, theirs if has else dataclasses.replace(theirs, target=None))
    for ours, theirs in zip(stream.batch(numbers), whole, strict=True):
        same(ours, theirs)


def test_a_stream_is_a_sequence(made, reader):
    stream = opened(made("sampled", logits=LOGITS["sampled"], **SECTIONS)[1], reader)
    assert [e.id for e in stream] == [e.id for e in stream[:]]
    assert [e.id for e in stream[3:6]] == [stream[n].id for n in (3, 4, 5)]
    assert stream[-1].id == stream[len(stream) - 1].id
    assert all(e.target is None for e in stream.rows([0, 1], targets=False))
    with pytest.raises(IndexError):
        stream[len(stream)]


# Reading ahead


def test_the_next_step_is_read_while_this_one_is_worked_on():
    seen = []

    def read(step: int) -> int:
        seen.append((step, threading.current_thread() is threading.main_thread()))
        return step * step

    with Ahead(read, 5) as batch_of:
        assert [batch_of(step) for step in (0, 1, 2, 4, 3)] == [0, 1, 4, 16, 9]
    assert (0, True) in seen
    assert (1, False) in seen
    assert max(step for step, _ in seen) == 4, "nothing is read after the last step"
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_an_error_is_raised_where_its_step_is_asked_for():
    def read(step: int) -> int:
        if step == 2:
            raise CorpusError("step 2 is damaged")
        return step

    with Ahead(read, 9) as batch_of:
        assert [batch_of(0), batch_of(1)] == [0, 1]
        with pytest.raises(CorpusError, match="step 2"):
            batch_of(2)
        assert batch_of(3) == 3
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


# The cache


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a cache but its lock."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("[!.]*.bin"))}


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("[!.]*.bin")}


def test_a_cache_is_made_once(run, reader):
    opened(run, reader)
    before = marks(run / "cache")
    for choice in ({}, {"share": 0.5}, {"max_length": 60}, {"labels_alone": True}):
        opened(run, reader, **choice)
    assert marks(run / "cache") == before
    moved = run.rename(run.parent / "moved")
    opened(moved, reader)
    assert marks(moved / "cache") == before, "a run that was moved keeps its cache"


def test_another_renderer_has_rows_of_its_own(run, reader):
    opened(run, reader)
    before = marks(run / "cache")
    longer = dataclasses.replace(
        reader, identity="two more", prompts=lambda rows: [[1, 2, *ids] for ids in reader.prompts(rows)]
    )
    assert opened(run, longer)[0].prompt[:2] == [1, 2]
    assert opened(run, reader)[0].prompt[:2] != [1, 2]
    after = marks(run / "cache")
    assert before.items() <= after.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {
        p.name for p in (run / "cache").glob("rows-*")
    } - {name.split("/")[0] for name in before}, "distributions do not depend on the renderer"


@pytest.mark.parametrize("place", ["start", "middle", "entries", "header", "tail", "cut", "empty", "foreign"])
@pytest.mark.parametrize("what", ["rows-*", "distributions-*"])
def test_a_damaged_segment_is_made_again(run, reader, what, place):
    opened(run, reader)
    wanted = files(run / "cache")
    path = sorted((run / "cache").glob(f"{what}/train-*.bin"))[1]
    data = bytearray(path.read_bytes())
    if place == "cut":
        data = data[:-7]
    elif place == "empty":
        data = bytearray()
    elif place == "foreign":
        data = bytearray(path.with_name("train-00000.bin").read_bytes())
    else:
        at = {"start": 3, "middle": len(data) // 2, "entries": -400, "header": -120, "tail": -50}[place]
        data[at] ^= 1
    path.write_bytes(data)
    assert files(run / "cache") != wanted
    opened(run, reader)
    assert files(run / "cache") == wanted


@pytest.mark.parametrize("what", ["rows-*", "distributions-*"])
def test_a_row_that_is_altered_while_training_stops_it(run, reader, what):
    stream = opened(run, reader)
    stream.rows(range(len(stream)))
    path = next((run / "cache").glob(f"{what}/train-00000.bin"))
    with path.open("r+b") as file:
        file.seek(20)
        byte = file.read(1)
        file.seek(20)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CorpusError, match="was changed"):
        stream.rows(range(len(stream)))
    stream.close()
    shutil.copy(path.with_name("train-00001.bin"), path)
    with pytest.raises(CorpusError, match="was changed"):
        stream.rows(range(len(stream)))
    path.unlink()
    with pytest.raises(CorpusError, match="was changed"):
        stream.rows(range(len(stream)))
    assert len(opened(run, reader).rows(range(len(stream)))) == len(stream)


def test_other_rows_are_other_segments(run, reader):
    first = opened(run, reader)
    path = run / "curated" / "data" / "train-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    second = opened(run, reader)
    assert len(second) == len(first) - 1
    assert table["id"][0].as_py() not in {e.id for e in second}


def test_killed_at_any_moment_the_next_makes_the_same_bytes(run, reader):
    """Before a blob's checksum, a sync and a rename; what was published before is not touched again."""
    opened(run, reader)
    wanted = files(run / "cache")

    def build(moment: int) -> int:
        """Open the stream in a child that is killed at a moment; its exit status."""
        child = os.fork()
        if child == 0:
            count = 0

            def dying(real):
                def call(*args):
                    nonlocal count
                    count += 1
                    if count == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args)

                return call

            segment.zlib.crc32, os.fsync, os.replace = map(dying, (segment.zlib.crc32, os.fsync, os.replace))
            opened(run, reader)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    killed, moment = 0, 1
    while True:
        shutil.rmtree(run / "cache")
        code = build(moment)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        before = marks(run / "cache")
        opened(run, reader)
        assert files(run / "cache") == wanted, moment
        assert before.items() <= marks(run / "cache").items(), moment
        assert not list((run / "cache").rglob(".tmp-*"))
        killed, moment = killed + 1, moment + 7
    assert killed > 8


def test_a_process_that_does_not_write_waits_for_the_one_that_does(run, reader):
    child = os.fork()
    if child == 0:
        os.environ["RANK"] = "1"
        os._exit(len(opened(run, reader)))
    time.sleep(0.5)
    assert not files(run / "cache")
    count = len(opened(run, reader))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == count


# What is refused


def alter(path: Path, change) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def logits_of(run: Path, shard: str = "train-00001") -> Path:
    (folder,) = (run / "generated" / "logits").iterdir()
    return folder / f"{shard}.parquet"


def swapped(table: pa.Table) -> pa.Table:
    """The distributions of the rows in reverse order, under the ids as they were."""
    order = pa.array(range(len(table))[::-1])
    return table.take(order).set_column(0, "id", table["id"])


def test_logits_of_another_row_are_refused(run, reader):
    opened(run, reader)
    alter(logits_of(run), swapped)
    with pytest.raises(CorpusError, match="does not belong to record"):
        opened(run, reader)
    assert len(opened(run, reader, labels_alone=True)) > 3


def test_a_row_without_logits_is_refused_if_it_would_teach(run, reader, teacher):
    examples = reference(run, teacher.render, Choice(512))[0]
    table = pq.read_table(logits_of(run))
    lengths = {e.id: len(e.prompt) + len(e.completion) for e in examples}
    row = max(
        (n for n, i in enumerate(table["id"].to_pylist()) if i in lengths),
        key=lambda n: lengths[table["id"][n].as_py()],
    )
    gone = table["id"][row].as_py()
    alter(logits_of(run), lambda t: t.filter(pa.array([i != gone for i in t["id"].to_pylist()])))
    with pytest.raises(CorpusError, match=f"no logits for record {gone}"):
        opened(run, reader)
    shorter = opened(run, reader, max_length=lengths[gone] - 1)
    assert len(shorter) == sum(length < lengths[gone] for length in lengths.values())


def test_logits_in_a_file_of_another_name_are_found(run, reader, teacher):
    wanted = reference(run, teacher.render, Choice(512))
    path = logits_of(run)
    pq.write_table(
        pa.concat_tables([pq.read_table(path), pq.read_table(logits_of(run, "train-00002"))]),
        path.with_name("z.parquet"),
    )
    path.unlink()
    logits_of(run, "train-00002").unlink()
    check_same(opened(run, reader), wanted)


@pytest.mark.parametrize("key", ["temperature", "draws", "teacher"])
def test_logits_of_another_kind_are_refused(run, reader, key):
    path = logits_of(run, "train-00000")
    shard, table = logits.read(path), pq.read_table(path)
    meta = {**shard.meta, key: "other" if key == "teacher" else shard.meta[key] + 1}
    tokens = {r.id: r.token_ids for _, some in corpus.records(run / "generated") for r in some}
    aligns = [logits.align(tokens[i], meta["teacher"], meta["tokenizer"], meta["temperature"]) for i in shard.ids]
    targets = [shard.target(row) for row in range(len(shard))]
    pq.write_table(logits.to_table(shard.ids, aligns, targets, meta), path)
    assert len(table) == len(targets)
    with pytest.raises(CorpusError, match="another kind, teacher or temperature"):
        opened(run, reader)


def test_rows_without_tokens_and_corpora_without_rows(run, reader):
    for path in (run / "curated" / "data").glob("train-*.parquet"):
        alter(
            path,
            lambda t: t.set_column(
                t.schema.get_field_index("token_ids"), "token_ids", pa.nulls(len(t), pa.list_(pa.int32()))
            ),
        )
    with pytest.raises(CorpusError, match="has no tokens"):
        opened(run, reader)
    with pytest.raises(CorpusError, match="no rows to train on in split 'validation'"):
        opened(run, reader, split="validation")
    with pytest.raises(CorpusError, match="no rows to train on"):
        opened(run, reader, split="test", max_length=3)
    shutil.rmtree(run / "generated" / "logits")
    with pytest.raises(CorpusError, match="no logits beside it"):
        opened(run, reader)


def test_a_shape_may_not_change_what_is_stored_beside_it(run, reader):
    other = dataclasses.replace(
        reader,
        identity="x",
        shape=lambda row, example: dataclasses.replace(example, also=(dataclasses.replace(example, id="y"),)),
    )
    with pytest.raises(ValueError, match="may not change a row's id"):
        opened(run, other)


# By column


def test_rows_by_column_are_in_training_order(run):
    for split, share in (("train", 1.0), ("train", 0.4), ("test", 0.1)):
        wanted = [
            (r.id, r.prompt, r.token_ids, r.seed_id, kept) for r, kept in reference_rows(run / "curated", split, share)
        ]
        names = [columns.PROMPT, columns.TOKENS, columns.SEED_ID]
        found = list(columns.teaching_rows(run / "curated", split, names, share))
        assert [(*(row[name] for name in ("id", *names)), kept) for row, kept in found] == wanted
        assert all(set(row) == {"id", *names} for row, _ in found)


def test_tokens_are_counted_by_column(run):
    wanted = np.zeros(300, np.int64)
    for record, _ in reference_rows(run / "curated", "train"):
        np.add.at(wanted, np.asarray(record.token_ids), 1)
    assert columns.token_counts(run / "curated", "train", 300).tolist() == wanted.tolist()
    assert columns.token_counts(run / "curated", "validation", 300).sum() == 0


def test_only_the_columns_asked_for_are_read(run):
    """A page of another column is damaged, and nobody sees it."""
    path = next((run / "curated" / "data").glob("train-*.parquet"))
    chunk = next(
        group.column(c)
        for group in [pq.read_metadata(path).row_group(0)]
        for c in range(group.num_columns)
        if group.column(c).path_in_schema.startswith("completion")
        and "content" in group.column(c).path_in_schema.split(".")
    )
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset + chunk.total_compressed_size - 5)
        file.write(b"damaged"[:4])
    rows = sum(batch.num_rows for _, batch in columns.columns(run / "curated", "data", "train", ["sources"], 3))
    assert rows == sum(len(some) for _, some in corpus.records(run / "generated", "data", "train")) - sum(
        len(some) for _, some in corpus.records(run / "curated", "rejected", "train")
    )
    with pytest.raises(CorpusError, match="is damaged"):
        list(columns.columns(run / "curated", "data", "train", ["completion"]))
