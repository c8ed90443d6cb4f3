"""Data sets in files and folders of each kind: every file is read, or the error names the file that cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

import synthgen
from synthgen.datasets import is_dataset, open_dataset, records, source_of
from synthgen.datasets.files import split_of
from synthgen.errors import UserError
from synthgen.recipe import SeedSource, Split

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
OTHER = {"type": "function", "function": {"name": "look", "arguments": {"word": "sea"}}}


def rows(*names: str) -> list[dict]:
    """One row for each name. The name is the text of the row's completion."""
    return [{"prompt": f"Which {name}?", "completion": name} for name in names]


def lines(*names: str) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows(*names))


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **more) -> list[tuple[str, str | None]]:
    """The text and the split of each record."""
    source = SeedSource(path=str(path), license="unknown", source="s", **more)
    return [(record.text, record.split) for _, record in records(open_dataset(source), "t", None)]


def texts(path: Path) -> list[str]:
    return [text for text, _ in read(path)]


def texts_without_bad_items(path: Path) -> list[str]:
    return [text for text, _ in read(path, on_bad_lines="skip")]


def refused(path: Path) -> str:
    assert is_dataset(path)
    with pytest.raises(UserError) as error:
        read(path)
    return f"{error.value.message}; {error.value.hint}"


def test_each_kind_of_file_is_read(tmp_path):
    table = pa.Table.from_pylist(rows("d"))
    put(tmp_path / "a.json", json.dumps(rows("a", "é" * 3), indent=1, ensure_ascii=False))
    put(tmp_path / "b.json.gz", gzip.compress(json.dumps(rows("b")).encode()))
    put(tmp_path / "c.json", lines("c"))
    pq.write_table(table, tmp_path / "d.parquet")
    feather.write_feather(pa.Table.from_pylist(rows("e")), tmp_path / "e.arrow", compression="zstd")
    put(tmp_path / "f.jsonl.zst", bytes(pa.Codec("zstd").compress(lines("f").encode())))
    put(tmp_path / "g.json.zst", bytes(pa.Codec("zstd").compress(b"\xef\xbb\xbf" + json.dumps(rows("g")).encode())))
    put(tmp_path / "h.json", "")
    put(tmp_path / "i.json", " [ ] ")
    put(tmp_path / "README.md", "rows")
    assert texts(tmp_path) == ["a", "ééé", "b", "c", "d", "e", "f", "g"]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_a_list_of_objects_is_read_in_parts(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("synthgen.datasets.rows._CHUNK", chunk)
    names = [f'name {n} é🙂 {{}}[],"\\' for n in range(20)]
    assert texts(put(tmp_path / "a.json", json.dumps(rows(*names), ensure_ascii=False, indent=2))) == names


@pytest.mark.parametrize("odd", ["1234", "-12.5", "6e22", "1.25E-7", "1e+9", '"a, b"'])
def test_an_item_that_is_no_object_is_read_to_its_end(tmp_path, monkeypatch, odd):
    """Otherwise, the rest of a number that lies in the next part of the file would be taken for a second item."""
    row = json.dumps(rows("a")[0])
    path = put(tmp_path / "a.json", f"[{odd}, {row}, {odd}, {odd} , {odd}]")
    for chunk in range(1, 60):
        monkeypatch.setattr("synthgen.datasets.rows._CHUNK", chunk)
        assert texts_without_bad_items(path) == ["a"], chunk
    assert f"{path}, item 1: not a JSON object" in refused(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"prompt": "a", "completion": "b"}, {"prompt": 1', "item 2: "),
        (b'[{"prompt": "a", "completion": "b"} {}]', "item 1: no comma or ']' after the item"),
        (b'[{"prompt": "a", "completion": "b"}]]', "item 1: more text after the end"),
        (b'[{"prompt": "a", "completion": "b"}, 7]', "item 2: not a JSON object"),
        (b'[{"prompt": "a", "completion": "b", "completion": "c"}]', "item 1: the key 'completion' occurs twice"),
        (b'[{"prompt": "a", "completion": "b"}, \xff]', "no UTF-8 text"),
        (b'{"rows": [1]}', "line 1: unknown format of rows; the columns are rows"),
        (gzip.compress(b"[" + b" " * 99, mtime=0)[:-4], "damaged|not a"),
    ],
)
def test_a_damaged_list_names_the_item(tmp_path, content, words):
    path = put(tmp_path / "a.json", content)
    if content[:2] == b"\x1f\x8b":
        path = path.rename(tmp_path / "a.json.gz")
        assert "a.json.gz, after item 0: the compressed file is damaged" in refused(path)
    else:
        assert words in refused(path)


def test_bad_items_are_left_out_on_request(tmp_path):
    path = put(tmp_path / "a.json", '[{"prompt": "a?", "completion": "a"}, 7, {"prompt": "b?", "completion": "b"}]')
    assert texts_without_bad_items(path) == ["a", "b"]
    path = put(tmp_path / "b.jsonl", lines("a", "b", "c"))
    assert [text for text, _ in read(path, limit=2)] == ["a", "b"]


def test_what_the_library_datasets_saved(tmp_path):
    one = Dataset.from_list(rows("a", "b"))
    one.save_to_disk(tmp_path / "one", num_shards=2)
    assert read(tmp_path / "one") == [("a", None), ("b", None)]
    DatasetDict(train_sft=one, test_sft=Dataset.from_list(rows("c"))).save_to_disk(tmp_path / "two")
    assert read(tmp_path / "two") == [("a", "train"), ("b", "train"), ("c", "test")]
    put(tmp_path / "two" / "train_sft" / "cache-1.arrow", "rows of a map")
    assert len(read(tmp_path / "two")) == 3
    put(tmp_path / "two" / "test_sft" / "data-00001-of-00002.arrow", "rows")
    assert "files that are not read: test_sft/data-00001-of-00002.arrow" in refused(tmp_path / "two")
    next((tmp_path / "one").glob("data-00000*")).unlink()
    assert "data-00000-of-00002.arrow is missing, and " in refused(tmp_path / "one")
    put(tmp_path / "bad.arrow", "rows")
    assert "bad.arrow: not a readable Arrow file" in refused(tmp_path / "bad.arrow")


def test_nulls_that_only_a_type_adds_are_no_keys(tmp_path):
    """In a typed column, each call also has the arguments of all other calls, with the value null. JSONL has no such
    nulls.
    """
    calls = [[CALL], [OTHER]]
    made = [
        {
            "messages": [
                {"role": "user", "content": "a?"},
                {"role": "assistant", "content": "b", "tool_calls": each},
            ],
            "tools": [{"type": "function", "function": {"name": "add", **more}}],
            "mine": {"x": None, "y": 1},
        }
        for each, more in zip(calls, ({}, {"strict": True}), strict=True)
    ]
    Dataset.from_list(made).save_to_disk(tmp_path / "saved")
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "made.parquet")
    put(tmp_path / "made.jsonl", "".join(json.dumps(row) + "\n" for row in made))
    for name in ("saved", "made.parquet", "made.jsonl"):
        found = [record for _, record in records(open_dataset(source_of(tmp_path / name)), "t", None)]
        assert [json.loads(record.completion[0]["tool_calls"]) for record in found] == calls, name
        assert [json.loads(record.tools) for record in found] == [row["tools"] for row in made], name
        assert found[0].own["mine"] == {"x": None, "y": 1}


def test_names_of_files_and_folders_say_the_split(tmp_path):
    hub = tmp_path / "hub"
    for split in ("train", "validation", "test"):
        (hub / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows(split)), hub / "data" / f"{split}-00000-of-00001.parquet")
    put(hub / ".gitattributes", "*.parquet")
    assert sorted(read(hub)) == [(split, split) for split in ("test", "train", "validation")]
    put(tmp_path / "folders" / "dev" / "rows.jsonl", lines("v"))
    put(tmp_path / "folders" / "train" / "rows.csv", "prompt,completion\na?,t\n")
    put(tmp_path / "folders" / "more.jsonl", lines("m"))
    assert read(tmp_path / "folders") == [("v", "validation"), ("m", None), ("t", "train")]
    names = {"train-00000": "train", "Eval_set": "test", "val": "validation", "constraints": None, "test-train": None}
    assert {name: split_of(name) for name in names} == names


def test_rows_that_are_all_in_train_get_a_split_as_seeds_do(tmp_path):
    put(tmp_path / "rows" / "train.jsonl", lines("a", "b"))
    assert read(tmp_path / "rows") == [("a", None), ("b", None)]
    assert read(put(tmp_path / "test.jsonl", lines("a"))) == [("a", None)]
    dataset = open_dataset(source_of(tmp_path / "rows"))
    assert {record.split for _, record in records(dataset, "t", Split(test=0.0))} == {"train"}


def test_a_column_with_the_split_comes_before_the_name_of_the_file(tmp_path):
    row = {"prompt": "a?", "completion": "a", "split": "test"}
    put(tmp_path / "rows" / "train.jsonl", json.dumps(row))
    put(tmp_path / "rows" / "test.jsonl", json.dumps({**row, "split": "train"}))
    assert read(tmp_path / "rows") == [("a", "train"), ("a", "test")]


def hub(folder: Path, configs: str) -> Path:
    put(folder / "README.md", f"---\nlicense: mit\nconfigs:\n{configs}---\n# Rows\n")
    return folder


def test_configurations_of_a_hub_repository(tmp_path):
    folder = tmp_path / "hub"
    for name in ("main/a-1", "main/a-2", "extra/b", "held"):
        put(folder / f"{name}.jsonl", lines(name))
    files = [{"split": "train", "path": "main/a-*.jsonl"}, {"split": "test", "path": "held.jsonl"}]
    main = f"- config_name: default\n  data_files: {json.dumps(files)}\n"
    hub(folder, main + "- config_name: extra\n  data_files: [extra/b.jsonl]\n")
    assert read(folder) == [("main/a-1", "train"), ("main/a-2", "train"), ("held", "test")]
    assert read(folder, config="extra") == [("extra/b", None)]
    with pytest.raises(UserError, match="no configuration 'x': default, extra"):
        read(folder, config="x")
    hub(folder, main)
    assert "files that are not read: extra/b.jsonl" in refused(folder)
    hub(
        folder, "- config_name: a\n  data_dir: main\n- config_name: b\n  data_files: {train: extra, test: held.jsonl}\n"
    )
    assert "several configurations: a, b; name one of them with `config`" in refused(folder)
    assert read(folder, config="a") == [("main/a-1", None), ("main/a-2", None)]
    assert read(folder, config="b") == [("extra/b", "train"), ("held", "test")]


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ("- config_name: a\n  data_files: none-*.jsonl\n", "README.md names 'none-*.jsonl', which is not there"),
        ("- config_name: a\n  data_files: ../a.jsonl\n", "names '../a.jsonl', which is not in this folder"),
        ("- config_name: a\n  data_files: hf://other/a.jsonl\n", "which is not in this folder"),
        ("- config_name: a\n  data_files: 7\n", "has configurations that cannot be read"),
        ("- data_files: a.jsonl\n", "has configurations that cannot be read"),
        ("- [\n", "has configurations that cannot be read"),
    ],
)
def test_a_header_that_names_other_files_is_refused(tmp_path, configs, words):
    put(tmp_path / "hub" / "a.jsonl", lines("a"))
    put(tmp_path / "a.jsonl", lines("outside"))
    assert words in refused(hub(tmp_path / "hub", configs))


def test_a_folder_is_not_read_in_part(tmp_path):
    put(tmp_path / "rows" / "a.jsonl", lines("a"))
    for name in ("notes.txt", "old/b.jsonl.part", "c.xlsx"):
        path = put(tmp_path / "rows" / name, "rows")
        assert f"files that are not read: {name}" in refused(tmp_path / "rows")
        path.unlink()
    put(tmp_path / "rows" / "dataset_info.json", "{}")
    assert texts(tmp_path / "rows") == ["a"]
    (tmp_path / "rows" / "b.jsonl").symlink_to(tmp_path / "gone")
    assert "files that are not read: b.jsonl" in refused(tmp_path / "rows")


def test_columns_that_no_row_has_are_named(tmp_path):
    """Bytes are not JSON values, so rows do not have this column, and an export would lose it."""
    table = pa.Table.from_pylist([{**row, "sound": b"x", "empty": None} for row in rows("a")])
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = open_dataset(source_of(tmp_path / "a.parquet"))
    assert (dataset.unread, dataset.own.names) == (("sound",), ["empty"])
    assert "columns that are not read (bytes or the like): sound" in dataset.text()
    with pytest.raises(UserError, match="columns that an export cannot hold: sound"):
        synthgen.export(tmp_path / "a.parquet", "messages", tmp_path / "out")
    Dataset.from_list([{**row, "images": [{"bytes": b"x"}]} for row in rows("a")]).save_to_disk(tmp_path / "seen")
    assert "have images, which cannot be learned" in refused(tmp_path / "seen")
