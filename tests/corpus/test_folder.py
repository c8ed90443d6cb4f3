"""The files of a corpus: from which inputs they were made, which files belong together, and which changes are found."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import contents, corpus_of, row

from synthgen import corpus, durable
from synthgen.errors import CorpusError, RunChanged
from synthgen.records import FAILURE_SCHEMA, to_table

INPUTS = {"a": 1}


@pytest.fixture
def folder(tmp_path) -> Path:
    """An unfinished corpus with two shards. Each shard has a file in rejected/, and one shard has failures."""
    folder = tmp_path / "corpus"
    corpus.claim(folder, INPUTS, "test")
    for number, name in enumerate(("train-00000", "test-00000")):
        table = to_table([row("x", number, split=name.split("-")[0])])
        corpus.commit(folder, name, {"data": table, "rejected": to_table([]), **({} if number else failures("a", "b"))})
    return folder


@pytest.fixture
def done(tmp_path) -> Path:
    rows = [row("x", n, split="test" if n > 5 else "train") for n in range(8)]
    return corpus_of(tmp_path / "done", rows) / "generated"


def failures(*kinds: str) -> dict[str, pa.Table]:
    values = {"seed_id": "s", "split": "train", "reason": "r", "teacher": "t"}
    rows = [{**dict.fromkeys(FAILURE_SCHEMA.names, ""), **values, "id": kind, "kind": kind} for kind in kinds]
    return {"failures": pa.Table.from_pylist(rows, FAILURE_SCHEMA)}


def alter(path: Path) -> None:
    """Changes the rows of a shard and keeps its metadata."""
    found = pq.ParquetFile(path).read()
    pq.write_table(pa.concat_tables([found, found]), path)


# Inputs


def test_a_folder_without_output_takes_other_inputs(tmp_path):
    folder = tmp_path / "corpus"
    corpus.claim(folder, INPUTS, "test")
    (folder / ".lock").touch()
    assert not corpus.is_begun(folder, INPUTS, "test")
    corpus.claim(folder, {"a": 2}, "test")
    assert corpus.load_json(folder / "inputs.json") == {"a": 2}
    assert not corpus.is_begun(tmp_path / "none", INPUTS, "test")


def test_a_folder_with_output_keeps_its_inputs(folder):
    assert corpus.is_begun(folder, INPUTS, "test")
    before = contents(folder)
    corpus.claim(folder, INPUTS, "test")
    assert contents(folder) == before
    for count, end in ((4, r"d3"), (5, r"d4"), (6, r"d4; and 1 more"), (7, r"d4; and 2 more")):
        with pytest.raises(RunChanged, match=rf"made from other inputs: d0; .*{end}$") as caught:
            corpus.is_begun(folder, {"a": 2}, "test", lambda old, new, count=count: [f"d{n}" for n in range(count)])
        assert "`test`" in caught.value.hint
    with pytest.raises(RunChanged):
        corpus.claim(folder, {"a": 2}, "test")


@pytest.mark.parametrize("file", ["manifest.json", "data/train-00000.parquet"])
def test_output_without_inputs_is_of_unknown_origin(tmp_path, file):
    (tmp_path / "data").mkdir()
    (tmp_path / file).write_text("{}")
    with pytest.raises(RunChanged, match="unknown origin"):
        corpus.is_begun(tmp_path, INPUTS, "test")
    (tmp_path / file).rename((tmp_path / file).with_name(".hidden.parquet"))
    assert not corpus.is_begun(tmp_path, INPUTS, "test")


# Shards


def test_the_companions_of_a_shard_are_written_before_its_data(tmp_path, monkeypatch):
    corpus.claim(tmp_path, INPUTS, "test")
    written = []
    monkeypatch.setattr(durable, "write_bytes", lambda path, data: written.append(path.parent.name))
    corpus.commit(tmp_path, "train-00000", {"data": to_table([]), "rejected": to_table([]), **failures("a")})
    assert written == ["failures", "rejected", "data"]


def test_failures_of_an_earlier_call_go(folder):
    assert corpus.shards(folder, "failures") == ["train-00000"]
    corpus.commit(folder, "train-00000", {"data": to_table([row("x")]), **failures("a")})
    assert corpus.shards(folder, "failures") == ["train-00000"]
    corpus.commit(folder, "train-00000", {"data": to_table([row("x")])})
    assert corpus.shards(folder, "failures") == []


def test_rows_are_compressed_and_have_checksums(tmp_path):
    corpus.claim(tmp_path, INPUTS, "test")
    corpus.commit(tmp_path, "train-00000", {"data": to_table([row("x" * 3000, n) for n in range(300)])})
    path = tmp_path / "data" / "train-00000.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert (column.compression, column.has_dictionary_page) == ("ZSTD", False)
    whole, start = path.read_bytes(), column.data_page_offset + column.total_compressed_size // 2
    for place in range(start, start + 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CorpusError, match="damaged"):
            corpus.read_columns(path, ["id"])


def test_failures_are_counted_by_shard(folder):
    assert corpus.failed(folder, ["a"]) == {"train-00000": 1}
    assert corpus.failed(folder, ["a", "b", "c"]) == {"train-00000": 2}
    assert corpus.failed(folder, ["c"]) == {}
    (folder / "data" / "train-00000.parquet").unlink()
    assert corpus.failed(folder, ["a"]) == {}, "the shard is not committed"


def test_committed_shards_have_their_companions(folder):
    assert corpus.committed(folder) == corpus.committed(folder, ["rejected"]) == {"train-00000", "test-00000"}
    with pytest.raises(CorpusError, match=r"test-00000\.parquet is damaged: its metadata"):
        corpus.committed(folder, ["failures"])
    alter(folder / "rejected" / "test-00000.parquet")
    with pytest.raises(
        CorpusError, match=r"rejected/test-00000\.parquet is damaged or does not match .*data/test-0000"
    ):
        corpus.committed(folder)
    (folder / "rejected" / "test-00000.parquet").unlink()
    with pytest.raises(CorpusError, match=r"rejected/test-00000\.parquet is missing beside .*data/test-00000"):
        corpus.committed(folder)


def test_only_names_of_shards_count_and_they_are_ordered(folder):
    (folder / "data" / "notes-1.parquet").touch()
    table = to_table([])
    for name in ("validation-00001", "train-100000", "train-10001", "train-00009"):
        corpus.commit(folder, name, {"data": table})
    ordered = ["train-00000", "train-00009", "train-10001", "train-100000", "validation-00001", "test-00000"]
    assert corpus.shards(folder) == ordered
    assert corpus.shards(folder, split="train") == ordered[:4]
    assert [name for name, _ in corpus.records(folder, "rejected")] == ["train-00000", "test-00000"]
    assert [[r.id for r in rows] for _, rows in corpus.records(folder, split="train")] == [["r0"], [], [], []]


# Finished corpora


def test_what_belongs_to_no_shard_ends_a_corpus(done):
    names = corpus.shards(done)
    facts = {**corpus.manifest(done)}
    listed = corpus.finish(done, "generated", facts, names)["files"]
    assert list(listed) == [f"data/{name}.parquet" for name in sorted(names)]
    assert [entry["rows"] for entry in listed.values()] == [2, 3, 3]
    with pytest.raises(CorpusError, match=r"train-00000\.parquet does not belong to this corpus"):
        corpus.finish(done, "generated", facts, names[1:])
    (done / "data" / "train-00000.parquet").unlink()
    with pytest.raises(CorpusError, match=r"train-00000\.parquet is missing: it was there"):
        corpus.finish(done, "generated", facts, names)


def test_companions_are_listed_and_checked_at_the_end(folder, done):
    facts = {**corpus.manifest(done)}
    listed = corpus.finish(folder, "generated", facts, corpus.shards(folder))["files"]
    assert list(listed) == [
        *("data/test-00000.parquet", "data/train-00000.parquet", "failures/train-00000.parquet"),
        *("rejected/test-00000.parquet", "rejected/train-00000.parquet"),
    ]
    alter(folder / "failures" / "train-00000.parquet")
    with pytest.raises(CorpusError, match=r"failures/train-00000\.parquet is damaged or does not match"):
        corpus.finish(folder, "generated", facts, corpus.shards(folder))


def test_an_altered_file_is_found(done):
    entries, name = corpus.manifest(done), "data/train-00001.parquet"
    path = done / name
    assert corpus.damaged(done) == []
    assert corpus.check_file(done, entries, name) == path
    assert corpus.verify(done) == entries
    whole = path.read_bytes()
    for other in (whole[:-1], whole + b" ", bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(other)
        assert corpus.damaged(done) == [name]
        for check in (lambda: corpus.check_file(done, entries, name), lambda: corpus.verify(done)):
            with pytest.raises(CorpusError, match=r"damaged"):
                check()
    path.unlink()
    assert corpus.damaged(done) == [name]
    path.symlink_to(done / "data/train-00000.parquet")
    assert corpus.damaged(done) == [name]
    with pytest.raises(CorpusError, match="damaged"):
        corpus.check_file(done, entries, "data/train-00007.parquet")


@pytest.mark.parametrize(("count", "more"), [(3, False), (4, True)])
def test_many_damaged_files_are_one_line(tmp_path, count, more):
    folder = corpus_of(tmp_path, [row("x", n) for n in range(4)], size=1) / "generated"
    for number in range(count):
        alter(folder / "data" / f"train-{number:05d}.parquet")
    with pytest.raises(CorpusError, match="train-00002") as caught:
        corpus.verify(folder)
    assert (" and more damaged" in caught.value.message) == more
    assert "train-00003" not in caught.value.message


def test_damaged_shards_go_and_the_others_stay(done):
    before = contents(done)
    assert corpus.discard_damaged(done) == []
    assert contents(done) == before
    alter(done / "data" / "train-00001.parquet")
    assert corpus.discard_damaged(done) == ["train-00001"]
    assert set(before) - set(contents(done)) == {"README.md", "manifest.json", "data/train-00001.parquet"}
    assert corpus.discard_damaged(done) == [], "there is no manifest now"


def test_damage_is_found_without_a_manifest(folder):
    before = contents(folder)
    assert corpus.discard_damaged(folder) == []
    assert contents(folder) == before
    alter(folder / "rejected" / "train-00000.parquet")
    assert corpus.discard_damaged(folder) == ["train-00000"]
    assert set(before) - set(contents(folder)) == {f"{p}/train-00000.parquet" for p in ("data", "rejected", "failures")}
    (folder / "data" / "test-00000.parquet").write_bytes(b"PAR1")
    assert corpus.discard_damaged(folder) == ["test-00000"]
    assert set(contents(folder)) == {"inputs.json"}


def test_the_data_of_a_shard_goes_first(folder, monkeypatch):
    gone, real = [], Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: (gone.append(path), real(path, missing_ok)))
    (folder / "data" / ".tmp-1.parquet").touch()
    corpus.discard(folder, ["train-00000"])
    names = [path.relative_to(folder).as_posix() for path in gone]
    shard = [f"{part}/train-00000.parquet" for part in ("data", "failures", "rejected")]
    assert names == ["README.md", *shard, "manifest.json"]


def test_no_corpus_is_one_line(tmp_path, folder):
    with pytest.raises(CorpusError, match="there is no corpus at"):
        corpus.manifest(tmp_path / "none")
    with pytest.raises(CorpusError, match="is not finished"):
        corpus.manifest(folder)


def test_a_damaged_json_file_names_the_flag(tmp_path):
    for name, flag in (("manifest.json", "--repair"), ("inputs.json", "--fresh")):
        (tmp_path / name).write_text("[")
        with pytest.raises(CorpusError) as caught:
            corpus.load_json(tmp_path / name)
        assert caught.value.hint.endswith(flag)


def test_own_columns_of_nothing_are_none(tmp_path):
    (tmp_path / "data").mkdir()
    assert corpus.own_columns(tmp_path) == pa.schema([])


# Which corpus a path means


def test_a_run_holds_the_corpus_that_is_finished(tmp_path, monkeypatch):
    with pytest.raises(CorpusError, match="does not exist"):
        corpus.resolve(tmp_path / "none")
    with pytest.raises(CorpusError, match="there is no corpus in"):
        corpus.resolve(tmp_path)
    for name in ("generated", "curated"):
        (tmp_path / name / "data").mkdir(parents=True)
    assert corpus.resolve(tmp_path) == tmp_path / "curated", "none is finished"
    (tmp_path / "generated" / "manifest.json").write_text(json.dumps({}))
    assert corpus.resolve(tmp_path) == tmp_path / "generated"
    (tmp_path / "curated" / "manifest.json").write_text(json.dumps({}))
    assert corpus.resolve(tmp_path) == tmp_path / "curated"
    assert corpus.resolve(tmp_path, ["generated"]) == tmp_path / "generated"
    monkeypatch.chdir(tmp_path)
    assert corpus.resolve(Path("curated")) == Path("curated")
    monkeypatch.chdir(tmp_path / "curated")
    assert corpus.resolve(Path()) == tmp_path / "curated"
    monkeypatch.chdir(tmp_path / "curated" / "data")
    assert corpus.resolve(Path("..")) == tmp_path / "curated"
