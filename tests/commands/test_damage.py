"""Damaged files of a run are named in an error and never used as if they were undamaged. --repair makes them again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.commands import cold, curated_files, files, mistake, warm

PARTS = ("data", "logits/teacher")


def unfinish(run: Path) -> None:
    """Makes the run look like one whose `generate` was killed: it has no manifest, and the last shard is missing."""
    for name in ("curated", "audit", "student"):
        shutil.rmtree(run / name)
    for path in (run / "generated").rglob("train-00005.parquet"):
        path.unlink()
    (run / "generated" / "manifest.json").unlink()


def half(path: Path) -> None:
    """Cuts a file to half of its length."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_byte(path: Path) -> None:
    """Changes the last byte of the first column. This byte belongs to the data and not to a header."""
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[(column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1] ^= 1
    path.write_bytes(data)


def unseen_byte(path: Path) -> None:
    """Changes a byte so that Parquet still reads the file, but with other content."""
    good, content = path.read_bytes(), pq.read_table(path)["ids_0"]
    for place in range(len(good) // 8, len(good)):
        data = bytearray(good)
        data[place] ^= 1
        try:
            changed = pq.read_table(pa.BufferReader(bytes(data)))["ids_0"]
        except (pa.ArrowException, OSError, KeyError):
            continue
        if not changed.equals(content):
            path.write_bytes(data)
            return
    raise AssertionError("no byte changes the content without an error")


def exchanged(path: Path) -> None:
    """Exchanges the content of a file with that of shard train-00002."""
    other = path.with_name("train-00002.parquet")
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


@pytest.mark.parametrize("finished_corpus", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", [half, one_byte, exchanged])
def test_damage_is_named_and_repaired(run, recipe, finished, damage, part, finished_corpus):
    if not finished_corpus:
        unfinish(run)
    path = run / "generated" / part / "train-00001.parquet"
    damage(path)
    before = files(run)
    command = ["synthgen", "generate", recipe, "-o", run]
    if damage is exchanged and part == "data" and not finished_corpus:
        named = "train-00001.parquet"  # the message may name the data file or the logits file
    else:
        named = f"{part}/train-00001.parquet"
    done = mistake(warm(*command), named)
    assert "--repair" in done.err
    assert files(run) == before
    untouched = (run / "generated" / "data" / "train-00003.parquet").stat().st_mtime_ns
    done = warm(*command, "--repair")
    assert done.code == 0, done
    damaged = {"train-00001", "train-00002"} if damage is exchanged else {"train-00001"}
    assert set(re.findall(r"shard (\S+) was damaged", done.err)) == damaged
    assert (run / "generated" / "data" / "train-00003.parquet").stat().st_mtime_ns == untouched
    assert files(run / "generated") == files(finished.run / "generated")


def test_stages_refuse_damaged_input(run):
    one_byte(run / "generated" / "data" / "train-00001.parquet")
    shutil.rmtree(run / "curated")
    mistake(cold("synthgen", "curate", run), "generated", "data/train-00001.parquet", "damaged")


def test_damage_of_the_curated_corpus(run, finished):
    half(run / "curated" / "rejected" / "train-00001.parquet")
    for command in (["synthgen", "audit", run], ["synthgen", "curate", run], ["distill", "train", run, "--fresh"]):
        mistake(warm(*command), "rejected/train-00001.parquet", "damaged")
    assert warm("synthgen", "curate", run, "--repair").code == 0
    assert curated_files(run / "curated") == curated_files(finished.run / "curated")


@pytest.mark.parametrize("spoil", [half, lambda path: path.write_text("{}"), lambda path: path.write_bytes(b"\xff")])
def test_a_damaged_manifest(run, recipe, finished, spoil):
    spoil(run / "generated" / "manifest.json")
    for command in (["synthgen", "generate", recipe, "-o", run], ["synthgen", "report", run]):
        mistake(warm(*command), "manifest.json", "damaged")
    assert warm("synthgen", "generate", recipe, "-o", run, "--repair").code == 0
    assert files(run / "generated") == files(finished.run / "generated")


def test_damaged_logits_never_teach(run):
    """One byte of the logits is changed, so the logits can be read but are wrong. The curated rows are not damaged."""
    unseen_byte(run / "generated" / "logits" / "teacher" / "train-00003.parquet")
    mistake(warm("distill", "train", run, "--fresh"), "logits/teacher/train-00003.parquet")
