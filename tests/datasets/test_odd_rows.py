"""Odd rows of data sets: each is read as a person would read it, or refused in one line with the file and the line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthgen.datasets import is_dataset, open_dataset, records
from synthgen.errors import UserError
from synthgen.recipe import SeedSource, Split
from synthgen.records import schema_with, to_table


def written(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, **more):
    dataset = open_dataset(SeedSource(path=str(path), license="CC0-1.0", source="mine", **more))
    found = [record for _, record in records(dataset, "t", Split(test=0.5))]
    table = to_table(found, schema_with(dataset.own))
    pq.write_table(table, path.with_suffix(".out"))
    return found, pq.read_table(path.with_suffix(".out"))


def refused(path: Path, **more) -> str:
    with pytest.raises(UserError) as caught:
        read(path, **more)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


def pair(prompt: object = "How far?", completion: object = "Not far.", **more) -> dict:
    return {"prompt": prompt, "completion": completion, **more}


def said(content: object, role: object = "user", **more) -> list[dict]:
    return [{"role": role, "content": content, **more}]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "How far"}, {"type": "text", "text": "?"}],
        [{"type": "input_text", "text": "How far?"}],
        [{"text": "How "}, "far?"],
    ],
)
def test_content_in_parts_of_text_is_text(tmp_path, content):
    found, _ = read(written(tmp_path / "a.jsonl", pair(said(content))))
    assert found[0].prompt == [{"role": "user", "content": "How far?"}]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (said({"text": "How far?"}), "a message has a content that is not text"),
        (said(7), "a message has a content that is not text"),
        (said([{"type": "image_url", "image_url": "x"}]), "content that is not text"),
        (said([{"type": "thinking", "text": "Hm."}]), "content that is not text"),
        (said([{"type": "text", "text": None}]), "content that is not text"),
        (said([["How far?"]]), "content that is not text"),
        (said("How far?", None), "a message has no role"),
        (said("How far?", 1), "a message has a role that is not text"),
        (said("How far?", name=7), "a message has a name that is not text"),
        (said("How far?", tool_call_id={}), "a message has a tool_call_id that is not text"),
        (said("How far?", reasoning=["Hm."]), "a message has a reasoning_content that is not text"),
        (said(" \n"), "the last message of the prompt is empty"),
        (said(None), "a message of the user has no content"),
        (said([]), "the last message of the prompt is empty"),
        ("  ", "no prompt"),
        (["How far?"], "no prompt"),
        ({"role": "user"}, "no prompt"),
        (7, "no prompt"),
        (float("nan"), "no prompt"),
    ],
)
def test_a_message_that_is_no_text_is_refused(tmp_path, prompt, words):
    path = written(tmp_path / "a.jsonl", pair(), pair(prompt))
    assert f"{path}, line 2: " in refused(path)
    assert words in refused(path)
    assert "completion is empty" in refused(written(path, pair(completion=said("", "assistant"))))


def test_a_call_of_a_tool_has_no_content(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    found, table = read(written(tmp_path / "a.jsonl", pair([*said("How far?"), call, *said("7", "tool")])))
    assert table["prompt"][0].as_py()[1]["content"] is None
    assert json.loads(found[0].prompt[1]["tool_calls"]) == call["tool_calls"]


def test_references_and_ids_keep_their_type(tmp_path):
    nan = float("nan")
    rows = [pair(id=1, reference=[7, None, nan, "vii", ""]), pair("Why?", id=2.5, reference=nan, answer=nan)]
    found, _ = read(written(tmp_path / "a.jsonl", *rows))
    assert [(r.id, r.reference, r.answer) for r in found] == [("1", ["7", "vii"], None), ("2.5", None, None)]
    found, _ = read(written(tmp_path / "b.jsonl", pair(id=nan), pair("Why?", id=1)))
    assert not {"1", "nan"} & {r.id for r in found}, "a column of ids with holes is the user's own"
    assert "line 1: no id in the column 'id'" in refused(tmp_path / "b.jsonl", id="id")
    assert "line 1: the reference is an object" in refused(written(tmp_path / "c.jsonl", pair(x={})), reference="x")
    assert "line 2: no column 'x'" in refused(written(tmp_path / "d.jsonl", pair(x=1), pair()), reference="x")
    found, _ = read(written(tmp_path / "e.jsonl", *(pair(f"{'x' * n}?", x=None) for n in range(40))), group="x")
    assert {r.split for r in found} == {"train", "test"}, "rows without a group do not form one group"


def test_identical_rows_with_ids_are_records_of_their_own(tmp_path):
    found, _ = read(written(tmp_path / "a.jsonl", pair(id=1), pair("Why?", id=2), pair(id=1), pair(id=1)))
    assert [r.id for r in found] == ["1", "2", "1#2", "1#3"]
    path = written(tmp_path / "b.jsonl", pair(id=1), pair(id=1), pair("Why?", id="1#2"))
    assert refused(path) == f"{path}, line 3: the id '1#2' occurs twice"


@pytest.mark.parametrize(
    "values",
    [
        [{}, {}],
        [2**60 + 1] * 1024 + [0.5],
        [0.5] * 1024 + [2**60 + 1],
        [2**63, -(2**63), 10**40],
        [json.loads("[" * 40 + "]" * 40)],
        [{str(n): n} for n in range(600)],
        [{str(n % 200 + n // 1024 * 200): n} for n in range(2048)],
        [[1], ["a"], [None], [[1]], 1, None, True, float("nan"), float("inf")],
    ],
    ids=["no fields", "large before floats", "large after floats", "larger", "deep", "wide", "wide together", "mixed"],
)
def test_own_columns_of_any_values_are_stored_without_loss(tmp_path, values):
    rows = [pair(f"{n}?", own=value) for n, value in enumerate(values)]
    _, table = read(written(tmp_path / "a.jsonl", *rows))
    kept = table["own"].to_pylist()
    if table.schema.field("own").type == pa.string():
        kept = [None if value is None else json.loads(value) for value in kept]
    assert repr(kept) == repr(values)


def test_a_dataset_with_bad_lines_is_refused_as_seeds_are(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a?", "completion": "\\ud83d"}\n')
    assert f"{path}, line 1: half of a surrogate pair" in refused(path)
    path.write_text('{"prompt": "a?", "completion": "b", "completion": "c"}\n')
    assert f"{path}, line 1: the key 'completion' occurs twice" in refused(path)
    (tmp_path / "b.txt").write_text("[]")
    assert is_dataset(tmp_path)
    assert "has files that are not read: b.txt" in refused(tmp_path)
    assert not is_dataset(tmp_path / ".hidden.jsonl")
