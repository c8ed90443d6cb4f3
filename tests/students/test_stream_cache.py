"""The token cache: it is made once, and made again when it is damaged. Wrong logits are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import list_again
from support.streams import (
    check_same,
    made,
    opened,
    reader,
    reference,
    run,
    teacher,
)

from distill.data import Choice
from distill.streaming import segment
from distill.streaming.stream import open_stream
from distill.streaming.tokencache import Turn
from synthgen import corpus, logits
from synthgen.errors import CorpusError

__all__ = ["made", "reader", "run", "teacher"]  # fixtures


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a cache except its lock."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("[!.]*.bin"))}


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("[!.]*.bin")}


def test_a_cache_is_made_once(run, reader):
    left = run / "cache" / "rows-of-a-killed-process" / ".tmp-train-00000.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    opened(run, reader)
    assert not left.exists()
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

    def two_more(rows):
        return [[Turn([1, 2, *first.prompt], first.completion), *more] for first, *more in reader.turns(rows)]

    longer = dataclasses.replace(reader, identity="two more", turns=two_more)
    assert opened(run, longer)[0].prompt[:2] == [1, 2]
    assert opened(run, reader)[0].prompt[:2] != [1, 2]
    after = marks(run / "cache")
    assert before.items() <= after.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {
        p.name for p in (run / "cache").glob("rows-*")
    } - {name.split("/")[0] for name in before}, "distributions do not depend on the renderer"


@pytest.mark.parametrize("place", ["start", "middle", "entries", "header", "tail", "cut", "empty", "foreign", "pipe"])
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
    elif place != "pipe":
        at = {"start": 3, "middle": len(data) // 2, "entries": -400, "header": -120, "tail": -50}[place]
        data[at] ^= 1
    path.unlink()
    if place == "pipe":
        os.mkfifo(path)
    else:
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
    with pytest.raises(CorpusError, match="changed while it was"):
        stream.rows(range(len(stream)))
    stream.close()
    shutil.copy(path.with_name("train-00001.bin"), path)
    with pytest.raises(CorpusError, match="changed while it was"):
        stream.rows(range(len(stream)))
    path.unlink()
    with pytest.raises(CorpusError, match="changed while it was"):
        stream.rows(range(len(stream)))
    assert len(opened(run, reader).rows(range(len(stream)))) == len(stream)


def test_a_segment_that_is_replaced_while_it_is_read_stops_its_reader(tmp_path):
    """The new file has the same layout and correct checksums. So the reader can notice only that the opened file was
    replaced.
    """
    path, kind = tmp_path / "a.bin", segment.entry_type()
    blobs = [np.random.default_rng(seed).bytes(100) for seed in range(2)]

    def write(blob: bytes) -> segment.Segment:
        segment.write(path, {"key": "k"}, np.zeros(1, kind), [([0], blob)])
        found = segment.Segment.open(path, "k", kind)
        assert found is not None
        return found

    files, first = segment.Files(), write(blobs[0])
    entry = files.entries(first)[0]
    second = write(blobs[1])
    assert (first.begin, first.count) == (second.begin, second.count)
    assert files.blob(first, entry) == blobs[0], "an open file is the old one"
    files.close()
    with pytest.raises(CorpusError, match="changed while it was"):
        files.entries(first)
    assert files.blob(second, files.entries(second)[0]) == blobs[1]


def test_other_rows_are_other_segments(run, reader):
    first = opened(run, reader)
    path = run / "curated" / "data" / "train-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    second = opened(run, reader)
    assert len(second) == len(first) - 1
    assert table["id"][0].as_py() not in {e.id for e in second}


def test_killed_at_any_moment_the_next_makes_the_same_bytes(run, reader):
    """The kill comes before a blob's checksum, a sync or a rename. Files that were finished before are not written
    again.
    """
    opened(run, reader)
    wanted = files(run / "cache")

    def build(moment: int) -> int:
        """Opens the stream in a child process that is killed at a given moment. Returns its exit status."""
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


def test_processes_that_begin_at_once_take_turns(run, reader):
    opened(run, reader)
    wanted = files(run / "cache")
    shutil.rmtree(run / "cache")
    children = []
    for _ in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            with contextlib.suppress(BaseException):
                stream = opened(run, reader)
                code = int(stream.rows(range(len(stream)))[0].target is None)
            os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert files(run / "cache") == wanted


def test_a_process_that_does_not_write_waits_for_the_one_that_does(run, reader):
    child = os.fork()
    if child == 0:
        os.environ["RANK"] = "1"
        os._exit(len(opened(run, reader)))
    time.sleep(0.5)
    assert not files(run / "cache")
    count = len(opened(run, reader))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == count


# Refused data


def alter(path: Path, change) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def logits_of(run: Path, shard: str = "train-00001") -> Path:
    (folder,) = (run / "generated" / "logits").iterdir()
    return folder / f"{shard}.parquet"


def swapped(table: pa.Table) -> pa.Table:
    """Reverses the order of a shard's distributions but not of its ids, so that ids have the distributions of other
    rows.
    """
    order = pa.array(range(len(table))[::-1])
    return table.take(order).set_column(0, "id", table["id"])


def test_logits_of_another_row_are_refused(run, reader):
    opened(run, reader)
    alter(logits_of(run), swapped)
    with pytest.raises(CorpusError, match=r"train-00001\.parquet is damaged"):
        opened(run, reader)
    list_again(run / "generated")
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
    list_again(run / "generated")
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
    list_again(run / "generated")
    check_same(opened(run, reader), wanted)


def altered_meta(run: Path, path: Path, **changes) -> pa.Table:
    """The rows of a logits file, with `changes` in its metadata."""
    shard = logits.read(path)
    meta = {**shard.meta, **changes}
    tokens = {r.id: r.token_ids for _, some in corpus.records(run / "generated") for r in some}
    aligns = [logits.align(tokens[i], meta["teacher"], meta["tokenizer"], meta["temperature"]) for i in shard.ids]
    return logits.to_table(shard.ids, aligns, [shard.target(row) for row in range(len(shard))], meta)


@pytest.mark.parametrize("changes", [{"temperature": 2.0}, {"draws": 10}, {"teacher": "other"}], ids=str)
def test_logits_of_another_kind_are_refused(run, reader, changes):
    path = logits_of(run, "train-00000")
    table = altered_meta(run, path, **changes)
    other = path.with_name("other.parquet")  # this file will hold the second half of the shard's rows
    whole = pq.read_table(path)
    pq.write_table(table.slice(0, 3), path)
    pq.write_table(whole.slice(3), other)
    list_again(run / "generated")
    with pytest.raises(CorpusError, match="differ from those of the other shards in kind, teacher or temperature"):
        opened(run, reader)
    other.unlink()
    pq.write_table(table, path)
    list_again(run / "generated")
    with pytest.raises(CorpusError, match="differ from those of the other shards in kind, teacher or temperature"):
        opened(run, reader)


def nothing(table: pa.Table) -> pa.Array:
    return pa.nulls(len(table), table.schema.field("completion").type)


def test_rows_without_tokens_and_corpora_without_rows(run, reader):
    for path in (run / "curated" / "data").glob("train-*.parquet"):
        alter(
            path,
            lambda t: t.set_column(
                t.schema.get_field_index("token_ids"), "token_ids", pa.nulls(len(t), pa.list_(pa.int32()))
            ),
        )
    with pytest.raises(CorpusError, match="no logits for record"):
        opened(run, reader)
    # without distributions, the student's tokenizer makes the tokens from the text
    stream = open_stream(run / "curated", reader, run / "cache", Choice(512, targets=False))
    assert all(row.completion and row.target is None for row in stream)
    for path in (run / "curated" / "data").glob("train-*.parquet"):
        alter(path, lambda t: t.set_column(t.schema.get_field_index("completion"), "completion", nothing(t)))
    with pytest.raises(CorpusError, match="has no completion to learn"):
        open_stream(run / "curated", reader, run / "cache", Choice(512, targets=False))
    with pytest.raises(CorpusError, match="no rows to train on in split 'validation'") as caught:
        opened(run, reader, split="validation")
    rows = Counter(record.split for _, found in corpus.records(run / "curated") for record in found)
    assert f"in other splits (train {rows['train']}, test {rows['test']})" in caught.value.hint
    with pytest.raises(CorpusError, match="no rows to train on"):
        opened(run, reader, split="test", max_length=3)
    shutil.rmtree(run / "generated" / "logits")
    with pytest.raises(CorpusError, match="no stored logits"):
        opened(run, reader)


def test_a_shape_may_not_change_what_is_stored_beside_it(run, reader):
    other = dataclasses.replace(
        reader,
        identity="x",
        shape=lambda row, example: dataclasses.replace(example, also=(dataclasses.replace(example, id="y"),)),
    )
    with pytest.raises(ValueError, match="may not change a row's id"):
        opened(run, other)
