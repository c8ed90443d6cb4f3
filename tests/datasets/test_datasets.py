"""Rows that synthgen did not make. The ids and columns of these rows are kept, whatever their types, and every shard
has all columns.
"""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthgen import corpus
from synthgen.datasets import is_dataset, open_dataset, records, store
from synthgen.errors import CorpusError, RecipeError
from synthgen.recipe import SeedSource, Split
from synthgen.records import SCHEMA


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def source(path, **more) -> SeedSource:
    return SeedSource(path=str(path), license="CC0-1.0", source="mine", **more)


def read(path, test=0.0, **more):
    dataset = open_dataset(source(path, **more))
    return dataset, [record for _, record in records(dataset, "t", Split(test=test))]


def pair(place: int, **more) -> dict:
    return {"prompt": f"question {place}", "completion": f"answer {place}", **more}


def test_text_and_messages_are_read_from_each_kind_of_file(tmp_path):
    messages = {
        "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "question 1"}],
        "completion": [{"role": "assistant", "content": "answer 1"}],
    }
    written(tmp_path / "rows" / "a.jsonl", [pair(0)])
    pq.write_table(pa.Table.from_pylist([messages]), tmp_path / "rows" / "b.parquet")
    with (tmp_path / "rows" / "c.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["prompt", "completion"], ["question 2", "answer 2"]])
    _, found = read(tmp_path / "rows")
    assert [r.text for r in found] == ["answer 0", "answer 1", "answer 2"]
    assert [m["role"] for m in found[1].prompt] == ["system", "user"]
    assert found[0].prompt == [{"role": "user", "content": "question 0"}]
    assert len({r.id for r in found}) == 3
    assert [(s["id"], s["role"], s["license"]) for s in found[0].sources] == [("mine", "dataset", "CC0-1.0")]
    assert (found[0].teacher, found[0].strategy, found[0].finish_reason) == (None, None, None)


def test_own_ids_are_kept_and_others_are_hashes(tmp_path):
    _, found = read(written(tmp_path / "a.jsonl", [pair(0, id=7), pair(1, id="x")]))
    assert [r.id for r in found] == ["7", "x"]
    _, found = read(written(tmp_path / "b.jsonl", [pair(0, key="k0"), pair(1, key="k1")]), id="key")
    assert [r.id for r in found] == ["k0", "k1"]
    _, found = read(written(tmp_path / "c.jsonl", [pair(0), pair(1), pair(0)]))
    assert len({r.id for r in found}) == 3
    _, again = read(tmp_path / "c.jsonl")
    assert [r.id for r in again] == [r.id for r in found]
    with pytest.raises(CorpusError, match=r"line 2: the id '7' occurs twice"):
        read(written(tmp_path / "d.jsonl", [pair(0, id=7), pair(1, id=7)]))


def test_a_column_of_ids_with_holes_is_the_users_own(tmp_path):
    dataset, found = read(written(tmp_path / "a.jsonl", [pair(0, id="x"), pair(1)]))
    assert dataset.own.names == ["id"]
    assert [r.own for r in found] == [{"source_id": "x"}, {"source_id": None}]


def test_columns_that_fit_are_taken_and_others_carried(tmp_path):
    rows = [
        pair(0, split="test", answer=4, reference=["4", 4.0], group_id="g", rationale="so", lang="en"),
        pair(1, split="train", reference="5", scores=[0.5], lang=None),
    ]
    dataset, found = read(written(tmp_path / "a.jsonl", rows))
    assert [r.split for r in found] == ["test", "train"]
    assert (found[0].answer, found[0].reference, found[0].group_id, found[0].rationale) == (
        "4",
        ["4", "4.0"],
        "g",
        "so",
    )
    assert (found[1].answer, found[1].reference) == (None, ["5"])
    assert [r.own for r in found] == [{"lang": "en", "source_scores": None}, {"lang": None, "source_scores": [0.5]}]
    assert dataset.own.field("scores").type == pa.list_(pa.float64())


def test_a_split_of_other_names_is_carried_and_the_side_is_drawn(tmp_path):
    rows = [pair(n, split="dev" if n % 2 else "train") for n in range(40)]
    _, found = read(written(tmp_path / "a.jsonl", rows), 0.5)
    assert {r.split for r in found} <= {"test", "train"}
    assert [r.own["source_split"] for r in found] == [row["split"] for row in rows]


def test_every_shard_has_all_columns_whatever_the_rows_of_it_have(tmp_path):
    """The rows fill several shards. The first 1,500 rows lack a column that all later rows have, and two columns change
    their type.
    """
    rows = [pair(n, mixed=n, number=n) for n in range(1500)]
    rows += [pair(n, mixed={"of": n}, number=n + 0.5, late=[n]) for n in range(1500, 2100)]
    dataset, _ = read(written(tmp_path / "a.jsonl", rows))
    folder = tmp_path / "corpus"
    corpus.claim(folder, {"test": 1}, "test")
    facts = {"description": "", "task": "t", "strategy": "", "prompt_version": "", "labels": [], "teachers": {}}
    facts |= {"sources": [], "counts": {"rows": 2100}}
    rows_of = (record for _, record in records(dataset, "t", Split(test=0.0)))
    store(folder, "generated", rows_of, dataset.own, facts)
    assert len(corpus.shards(folder)) == 3
    own = corpus.own_columns(folder)
    assert {f.name: f.type for f in own} == {
        "mixed": pa.string(),
        "number": pa.float64(),
        "late": pa.list_(pa.int64()),
    }
    for name in corpus.shards(folder):
        assert pq.read_schema(folder / "data" / f"{name}.parquet").names == [*SCHEMA.names, *own.names]
    assert corpus.committed(folder) == set(corpus.shards(folder))
    found = [r for _, some in corpus.records(folder) for r in some]
    assert [r.own["number"] for r in found] == [row["number"] for row in rows]
    assert [r.own["late"] for r in found] == [row.get("late") for row in rows]
    assert (found[3].own["mixed"], found[1500].own["mixed"]) == ("3", '{"of": 1500}')


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([], CorpusError, "there are no rows"),
        ([{"question": "x"}], RecipeError, "line 1: unknown format of rows; the columns are question"),
        ([pair(0), {"prompt": "x"}], RecipeError, r"line 2: no completion \(text, or messages with roles\)"),
        ([pair(0), pair(1, completion=[])], RecipeError, "line 2: no completion"),
        ([pair(0), pair(1, prompt=[{"content": "x"}])], RecipeError, "line 2: no prompt"),
    ],
)
def test_rows_that_cannot_be_read_are_named(tmp_path, rows, error, words):
    with pytest.raises(error, match=words):
        read(written(tmp_path / "a.jsonl", rows))


def test_messages_get_the_form_of_the_record(tmp_path):
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "question"}]
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    completion = [{"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call], "weight": 1}]
    _, (found,) = read(
        written(tmp_path / "a.jsonl", [{"prompt": [{"role": "user", "content": parts}], "completion": completion}])
    )
    assert found.prompt == [{"role": "user", "content": "a question"}]
    (said,) = found.completion
    assert (said["reasoning_content"], json.loads(said["tool_calls"])) == ("hm", [call])
    picture = [{"role": "user", "content": [{"type": "image", "url": "x"}]}]
    with pytest.raises(RecipeError, match="line 1: a message has content that is not text"):
        read(written(tmp_path / "b.jsonl", [{"prompt": picture, "completion": "y"}]))


def test_runs_and_corpora_are_no_datasets(tmp_path):
    written(tmp_path / "rows" / "a.jsonl", [pair(0)])
    assert is_dataset(tmp_path / "rows")
    assert is_dataset(tmp_path / "rows" / "a.jsonl")
    assert not is_dataset(tmp_path / "nothing")
    (tmp_path / "rows" / "curated").mkdir()
    (tmp_path / "rows" / "curated" / "inputs.json").write_text("{}")
    assert not is_dataset(tmp_path / "rows")


def test_rows_that_cannot_be_used_are_an_error_only_without_others(tmp_path):
    bad, good = {"prompt": "p", "completion": ""}, pair(0)
    for rows in ([bad, good], [good, bad, bad], [good]):
        assert open_dataset(source(written(tmp_path / "a.jsonl", rows)), skip=True).rows == len(rows)
    for rows in ([bad], [bad, bad]):
        with pytest.raises(RecipeError, match="line 1: no completion"):
            open_dataset(source(written(tmp_path / "b.jsonl", rows)), skip=True)
    with pytest.raises(RecipeError, match="line 2: no completion"):
        open_dataset(source(written(tmp_path / "c.jsonl", [good, bad])))
