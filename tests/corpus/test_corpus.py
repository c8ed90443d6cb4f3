"""A corpus is read by column, and its shards have equal columns. Old and damaged corpora are refused with an error of
one line.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import corpus_of, curating, row

import synthgen
from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.records import FAILURE_SCHEMA, SCHEMA, Record, from_rows, own_names, schema_with, to_table


def test_batches_have_the_columns_asked_for_in_corpus_order(tmp_path):
    rows = [row("x", n, split="test" if n < 3 else "train") for n in range(8)]
    folder = corpus_of(tmp_path, rows, size=2) / "generated"
    found = list(corpus.batches(folder, "data", ["split", "id"], rows=1))
    assert [name for name, _ in found] == [
        *["train-00000"] * 2, *["train-00001"] * 2, "train-00002", *["test-00000"] * 2, "test-00001"
    ]  # fmt: skip
    assert all(batch.schema.names == ["split", "id"] and batch.num_rows == 1 for _, batch in found)
    assert [batch["id"][0].as_py() for _, batch in found] == ["r3", "r4", "r5", "r6", "r7", "r0", "r1", "r2"]
    only = [batch["id"].to_pylist() for _, batch in corpus.batches(folder, "data", ["id"], "test")]
    assert only == [["r0", "r1"], ["r2"]]
    assert list(corpus.batches(folder, "rejected", ["id"])) == []
    with pytest.raises(CorpusError, match="has no column 'level'"):
        list(corpus.batches(folder, "data", ["id", "level"]))


def test_a_shard_without_rows_gives_one_empty_batch(tmp_path):
    folder = tmp_path / "corpus"
    corpus.claim(folder, {"test": 1}, "test")
    corpus.commit(folder, "train-00000", {"data": to_table([])})
    ((_, batch),) = corpus.batches(folder, "data", ["id", "scores"])
    assert (batch.num_rows, batch.schema.names) == (0, ["id", "scores"])
    assert corpus.read_columns(folder / "data" / "train-00000.parquet", ["id"]).num_rows == 0


def test_every_shard_has_the_same_own_columns(tmp_path):
    folder = tmp_path / "corpus"
    corpus.claim(folder, {"test": 1}, "test")
    own = pa.schema([("level", pa.int64()), ("id", pa.string())])
    table = to_table([row("x", 0, own={"level": 3, "source_id": "mine"})], schema_with(own))
    corpus.commit(folder, "train-00000", {"data": table})
    assert corpus.committed(folder) == {"train-00000"}
    assert corpus.own_columns(folder).names == ["level", "source_id"]
    corpus.commit(folder, "train-00001", {"data": to_table([row("y", 1)])})
    with pytest.raises(CorpusError, match=r"train-00001\.parquet has other columns than train-00000\.parquet"):
        corpus.committed(folder)


@pytest.mark.parametrize("names", [SCHEMA.names[:-1], [*SCHEMA.names[1:], "id"]])
def test_a_shard_without_the_columns_of_the_record_is_damaged(tmp_path, names):
    folder = tmp_path / "corpus"
    corpus.claim(folder, {"test": 1}, "test")
    corpus.commit(folder, "train-00000", {"data": to_table([row("x", 0)]).select(names)})
    with pytest.raises(CorpusError, match="train-00000"):
        corpus.committed(folder)


def older(run) -> None:
    """Changes the manifest and one shard to schema version 1."""
    path = run / "generated" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "schema_version": 1}))
    shard = run / "generated" / "data" / "train-00000.parquet"
    table = pq.ParquetFile(shard).read()
    gone = {"group_id", "pair_role", "tools", "teaches", "served_model", "edits"}
    pq.write_table(table.select([name for name in table.column_names if name not in gone]), shard)


def test_an_older_corpus_is_refused_in_one_line(tmp_path):
    run = corpus_of(tmp_path, [row("x", 0)])
    older(run)
    for command in (synthgen.curate, synthgen.audit):
        with pytest.raises(
            CorpusError, match="schema version 1; this version of synthgen reads schema version 2"
        ) as caught:
            command(curating(), run)
        assert "\n" not in caught.value.message
        assert "make the corpus again" in caught.value.hint
    with pytest.raises(CorpusError, match="schema version 1"):
        synthgen.show(run)
    with pytest.raises(CorpusError, match="columns of an older version"):
        corpus.read_shard(run / "generated" / "data" / "train-00000.parquet")
    with pytest.raises(CorpusError, match="columns of an older version"):
        corpus.own_columns(run / "generated")


def test_which_columns_are_never_null():
    assert {f.name for f in SCHEMA if not f.nullable} == {"id", "seed_id", "teaches"}
    assert {f.name for f in FAILURE_SCHEMA if not f.nullable} == set(FAILURE_SCHEMA.names)


def test_a_column_with_the_name_of_a_column_of_the_record():
    assert own_names(["a", "id", "source_id"]) == {"a": "a", "id": "source_id", "source_id": "source_source_id"}


def test_the_text_of_a_row():
    prompt = [{"role": "user", "content": "z"}, {"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    one = Record("i", "s", "train", "t", None, None, prompt, [], None)
    assert one.text == "b"
    one.completion = [{"role": "assistant", "content": None}, {"role": "assistant", "content": "c"}]
    assert one.text == "\nc"
    (back,) = from_rows([{**vars(one), "id": "j", "mine": 1}])
    assert (back.id, back.text, back.own["mine"]) == ("j", "\nc", 1)
