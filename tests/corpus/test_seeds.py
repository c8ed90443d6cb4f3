"""Seeds are read from many sources, and a seed is always assigned to the same split. An error names the file and line
of a bad seed.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import hashlib
import json
import random
import string
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthgen.errors import RecipeError
from synthgen.prompts import load_prompt
from synthgen.recipe import SeedSource, Split
from synthgen.seeds import load_seeds
from synthgen.seeds.changes import RowHashes, changed_rows

ROWS = [{"id": f"q{i}", "question": f"What is {i} plus thing-{chr(97 + i)}?", "answer": str(i)} for i in range(12)]


def source(path: Path | str | None = None, **more) -> SeedSource:
    return SeedSource(**{"license": "MIT", "source": "tests", "path": str(path) if path else None, **more})


def load(*sources: SeedSource, split: Split | None = None, text=lambda fields: fields["question"]):
    return load_seeds(sources, split or Split(), text)


def refused(*sources: SeedSource, **more) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load(*sources, **more)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def jsonl(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def comma(path: Path, rows=ROWS) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def parquet(path: Path, rows=ROWS) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


# --- sources of seeds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "name"), [(jsonl, "a.jsonl"), (comma, "a.csv"), (parquet, "a.parquet")])
def test_the_same_rows_from_any_kind_of_file(tmp_path, write, name):
    seeds = load(source(write(tmp_path / name), id="id", reference="answer"))
    assert [s.id for s in seeds] == [row["id"] for row in ROWS]
    assert [s.fields for s in seeds] == ROWS
    assert [s.reference for s in seeds] == [[row["answer"]] for row in ROWS]
    expected = load(source(jsonl(tmp_path / "same.jsonl"), id="id", reference="answer"))
    assert seeds.fingerprint == expected.fingerprint


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    parquet(tmp_path / "b" / "two.parquet", ROWS[4:8])
    jsonl(tmp_path / "a.jsonl", ROWS[:4])
    comma(tmp_path / "c.csv", ROWS[8:])
    (tmp_path / "README.md").write_text("not seeds")
    assert [s.id for s in load(source(tmp_path, id="id"))] == [row["id"] for row in ROWS]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_dataset_is_streamed(tmp_path, kind):
    """Calls the real `load_dataset` on a folder in the hub's form: a card with configurations, and data files."""
    folder = tmp_path / "questions"
    (folder / "data").mkdir(parents=True)
    write = {"jsonl": jsonl, "parquet": parquet}[kind]
    write(folder / "data" / f"train-0.{kind}", ROWS[:7])
    write(folder / "data" / f"test-0.{kind}", ROWS[7:])
    files = [{"split": s, "path": f"data/{s}-*.{kind}"} for s in ("train", "test")]
    (folder / "README.md").write_text(
        f"---\n{json.dumps({'configs': [{'config_name': 'main', 'data_files': files}]})}\n---\n"
    )
    more = {"dataset": str(folder), "config": "main", "id": "id", "reference": "answer"}
    assert [s.fields for s in load(source(**more))] == ROWS[:7]
    assert [s.fields for s in load(source(**more, dataset_split="test"))] == ROWS[7:]
    assert len(load(source(**more, limit=3))) == 3
    assert [s.id for s in load(source(**more), source(**more, dataset_split="test"))] == [row["id"] for row in ROWS]
    for wrong in ({"dataset_split": "tset"}, {"config": "mian"}, {"dataset": str(tmp_path / "nowhere")}):
        said = refused(source(**{**more, **wrong}))
        assert "cannot be read" in said.message
        assert "split" in said.hint


def test_a_dataset_that_cannot_be_reached_is_one_line(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refused(source(dataset="nobody/has-such-a-set"))
    assert "dataset 'nobody/has-such-a-set' cannot be read" in said.message
    assert "seeds.path" in said.hint


def test_several_sources_keep_their_own_terms(tmp_path):
    one = source(jsonl(tmp_path / "a.jsonl", ROWS[:2]), id="id")
    two = source(jsonl(tmp_path / "b.jsonl", ROWS[2:5]), id="id", license="CC0-1.0", source="elsewhere")
    assert [(s.source.source, s.source.license) for s in load(one, two)] == [("tests", "MIT")] * 2 + [
        ("elsewhere", "CC0-1.0")
    ] * 3


def test_limit_and_fields(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"id": i, "q": f"w{i}?"} for i in range(9)])
    seeds = load(source(path, id="id", limit=4, fields={"question": "q"}))
    assert [s.fields["question"] for s in seeds] == ["w0?", "w1?", "w2?", "w3?"]
    assert [s.id for s in seeds] == ["0", "1", "2", "3"]
    said = refused(source(path, id="id", fields={"question": "qq"}))
    assert "line 1: no column 'qq'; did you mean 'q'?" in said.message


def test_without_an_id_column_the_row_is_its_id(tmp_path):
    first = load(source(jsonl(tmp_path / "a.jsonl", [{"question": "a?", "x": 1}, {"question": "b?", "x": 1}])))
    again = load(source(jsonl(tmp_path / "b.jsonl", [{"x": 1, "question": "b?"}, {"question": "c?", "x": 2}])))
    assert first[1].id == again[0].id, "neither file nor key order counts"
    assert len({s.id for s in [*first, *again]}) == 3


def test_columns_that_are_no_text(tmp_path):
    """Times and decimals become text. Bytes, such as images, are left out. Lists and structs are kept."""
    rows = [
        {
            "question": f"q{i}?",
            "when": datetime.datetime(2024, 1, 2, 3, i),
            "price": decimal.Decimal("1.50"),
            "image": {"bytes": b"\x89PNG", "path": "x.png"},
            "raw": b"\xff",
            "tags": ["a", "b"],
            "nested": {"deep": [1, None]},
        }
        for i in range(2)
    ]
    seeds = load(source(parquet(tmp_path / "a.parquet", rows)))
    assert seeds[0].fields == {
        "question": "q0?",
        "when": "2024-01-02 03:00:00",
        "price": "1.50",
        "tags": ["a", "b"],
        "nested": {"deep": [1, None]},
    }
    assert seeds.fingerprint


def test_utf8_with_a_byte_order_mark_and_odd_line_ends(tmp_path):
    rows = [{"id": "ä", "question": "Größe\u2028?"}, {"id": "日", "question": "b?"}]
    text = "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\r\n\r\n"
    (tmp_path / "a.jsonl").write_bytes(text.encode())
    assert [s.fields for s in load(source(tmp_path / "a.jsonl", id="id"))] == rows
    (tmp_path / "a.csv").write_bytes('\ufeffid,question\r\nä,"two\nlines"\r\n'.encode())
    assert [s.fields for s in load(source(tmp_path / "a.csv", id="id"))] == [{"id": "ä", "question": "two\nlines"}]


def odd_rows(count: int) -> list[dict[str, str]]:
    """Rows with many kinds of text. The rows are the same in every process."""
    words = ["two", "apples", "Ann", "Bob's", "ten", "écoute", "日本語", "3,000.5", "x-y", "often", "someone", "THIRTY"]
    words += ["\t", "—", "“Hi”", 'a"b', "line\nbreak", "5%", "None", "naïve", "S", "ſix", ""]
    return [
        {
            "id": f"i{n}",
            "question": " ".join(words[(n * 7 + k * (k + n)) % len(words)] for k in range(2 + n % 13)) + f" {n}?",
            "answer": str(n % 7),
            "topic": f"t{n % 101}",
        }
        for n in range(count)
    ]


# A hash over id, fields and reference of 1,500 rows of `odd_rows`, computed with commit 199c186. The splits with a
# column of groups, and the fingerprint, were also computed with that commit.
BEFORE = {"": "45c4d15c80b44e1a", "id": "a3971aab090b5f84", "id reference": "f9057f3d63f99f23"}
SPLITS_BEFORE = ("97663ca4d50ac2a7", "44fbbb9e9d020d76")


def hash_of(seeds, *names: str) -> str:
    hashed = hashlib.sha256()
    for seed in seeds:
        hashed.update(repr(tuple(getattr(seed, name) for name in names)).encode())
    return hashed.hexdigest()[:16]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("columns", ["", "id", "id reference", "group"])
def test_ids_sides_and_fingerprints_are_those_of_earlier_versions(tmp_path, kind, columns):
    write = {"jsonl": jsonl, "csv": comma, "parquet": parquet}[kind]
    names = {name: {"reference": "answer", "group": "topic"}.get(name, name) for name in columns.split()}
    split = Split(validation=0.1, seed=4)
    seeds = load(source(write(tmp_path / f"a.{kind}", odd_rows(1500)), **names), split=split)
    assert hash_of(seeds, "id", "fields", "reference") == BEFORE[columns.replace("group", "")]
    if columns == "group":
        assert (hash_of(seeds, "id", "split", "fields", "reference"), seeds.fingerprint[:16]) == SPLITS_BEFORE


def test_seeds_are_read_when_they_are_wanted(tmp_path):
    """Seeds are stored in an unnamed file in the cache folder. Later changes of the seed files have no effect."""
    path = jsonl(tmp_path / "a.jsonl")
    seeds = load(source(path, id="id"))
    path.write_text("gone")
    assert [s.id for s in seeds[2:5]] == ["q2", "q3", "q4"]
    assert (seeds[-1].id, seeds[0].question, len(seeds)) == ("q11", ROWS[0]["question"], 12)
    with pytest.raises(IndexError):
        seeds[12]
    order = [seeds[int(place)].split for place in seeds.places()]
    assert order == sorted(order, key=("train", "validation", "test").index)
    assert Counter(order) == {split: count for split, count in seeds.counts.items() if count}


# --- errors in seeds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        b'{"id": "q6", "question": "What\n',
        b"[1, 2]\n",
        b'"text"\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"id": "q6", "question": "What \\ud83d?"}\n',
        b'{"id": "q6", "question": "What?"} {}\n',
    ],
    ids=["half", "list", "string", "not utf-8", "deep", "half a character", "two"],
)
def test_a_malformed_line_is_named_and_the_others_kept_when_asked(tmp_path, bad):
    path = jsonl(tmp_path / "a.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:6], bad, *lines[7:]]))
    said = refused(source(path, id="id"))
    assert f"{path}, line 7: " in said.message
    assert "on_bad_lines: skip" in said.hint
    kept = load(source(path, id="id", on_bad_lines="skip"))
    assert [s.id for s in kept] == [row["id"] for i, row in enumerate(ROWS) if i != 6]


@pytest.mark.parametrize("bad", ["q6,only", "q6,a,b,c"])
def test_a_csv_line_with_other_cells_than_the_header(tmp_path, bad):
    path = comma(tmp_path / "a.csv")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:7], bad, *lines[8:]]) + "\n")
    assert f"{path}, line 8: more or fewer cells" in refused(source(path, id="id")).message
    kept = load(source(path, id="id", on_bad_lines="skip"))
    assert [s.id for s in kept] == [row["id"] for i, row in enumerate(ROWS) if i != 6]


def test_a_csv_that_is_no_text(tmp_path):
    path = comma(tmp_path / "a.csv")
    path.write_bytes(path.read_bytes() + b"q99,\xff\xfe,x\n")
    assert str(path) in refused(source(path, id="id")).message


def test_parquet_that_is_none(tmp_path):
    path = parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path}: not a readable Parquet file" in refused(source(path)).message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "", "no seeds in it"),
        ("a.jsonl", "\n\n", "no seeds in it"),
        ("a.csv", "", "no seeds in it"),
        ("a.csv", "id,question\n", "no seeds in it"),
        ("a.txt", "What?", "has an unknown format"),
    ],
)
def test_a_file_without_seeds(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    found = refused(source(tmp_path / name))
    assert said in found.message
    assert name in found.message


def test_what_is_not_there(tmp_path):
    assert f"seed file '{tmp_path}/none.jsonl' does not exist" in refused(source(tmp_path / "none.jsonl")).message
    assert "no seeds in folder" in refused(source(tmp_path)).message
    assert ".jsonl, .csv, .parquet" in refused(source(tmp_path)).hint
    parquet(tmp_path / "none.parquet", [{"id": "x"}])
    table = pq.read_table(tmp_path / "none.parquet").slice(0, 0)
    pq.write_table(table, tmp_path / "none.parquet")
    assert "no seeds in it" in refused(source(tmp_path / "none.parquet")).message


def test_an_id_that_is_there_twice_names_both_places(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [*ROWS, {**ROWS[3], "question": "Another?"}])
    said = refused(source(path, id="id")).message
    assert said == f"{path}, line 13: seed id 'q3' is already used at {path}, line 4"
    twin = jsonl(tmp_path / "b.jsonl", [{**ROWS[5], "answer": "other"}])
    assert f"{twin}, line 1" in refused(source(jsonl(path), id="id"), source(twin, id="id")).message


@pytest.mark.parametrize("column", ["id", "group", "reference"])
def test_a_column_that_the_recipe_names_and_a_seed_lacks(tmp_path, column):
    path = jsonl(tmp_path / "a.jsonl", [{"question": "a?", "kind": 1}, {"question": "b?"}])
    said = refused(source(path, **{column: "kind"})).message
    assert f"{path}, line 2: no column 'kind'" in said


def test_a_field_that_the_template_uses_and_a_seed_lacks(tmp_path):
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "user.j2").write_text("{{ question }} {{ context.page }}")
    prompt = load_prompt(str(folder), "task")
    rows = [{"question": "a?", "context": {"page": 1}}, {"question": "b?", "context": {}}, {"question": "c?"}]
    for count, line in ((2, 2), (3, 2)):
        path = jsonl(tmp_path / "a.jsonl", rows[:count])
        for group in (None, "question"):
            said = refused(source(path, group=group), text=prompt.question)
            assert f"{path}, line {line}: template task/user.j2" in said.message
            assert "has: context, question" in said.message
            assert "seeds.fields" in said.hint


# --- the split --------------------------------------------------------------------------------------------------------


def test_no_group_is_on_two_sides(tmp_path):
    rows = [{"id": i, "question": f"{i}?", "topic": f"t{i % 60}"} for i in range(600)]
    seeds = load(
        source(jsonl(tmp_path / "a.jsonl", rows), id="id", group="topic"), split=Split(test=0.3, validation=0.2)
    )
    sides = defaultdict(set)
    for seed in seeds:
        sides[seed.fields["topic"]].add(seed.split)
    assert all(len(found) == 1 for found in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "validation", "test"}


def test_without_a_group_what_asks_the_same_is_a_group(tmp_path):
    names = ["Mia", "Tom", "Nora", "Lily", "Ben"]
    rows = []
    for shape in range(40):
        words = "".join(random.Random(shape).choices(string.ascii_lowercase, k=12))
        for i, name in enumerate(names):
            count = random.Random(i).randint(2, 99)
            rows.append({"question": f"{name} has {count} {words}. Says {name}: how many has {name}?"})
    seeds = load(source(jsonl(tmp_path / "a.jsonl", rows)), split=Split(test=0.5))
    sides = [{s.split for s in seeds[i : i + 5]} for i in range(0, len(seeds), 5)]
    assert all(len(found) == 1 for found in sides)
    assert {"train", "test"} == set.union(*sides)


def test_a_seed_keeps_its_side_as_seeds_are_added_and_moved(tmp_path):
    rows = [{"id": i, "question": f"q {string.ascii_lowercase[i % 26]}{'x' * (i // 26)}?"} for i in range(300)]
    split = Split(test=0.25, validation=0.1, seed=7)

    def sides(some, name) -> dict[str, str]:
        return {s.id: s.split for s in load(source(jsonl(tmp_path / name, some), id="id"), split=split)}

    few = sides(rows[:100], "few.jsonl")
    shuffled = random.Random(0).sample(rows, len(rows))
    for more in (sides(rows, "all.jsonl"), sides(shuffled, "shuffled.jsonl")):
        assert {k: more[k] for k in few} == few
    other = split.model_copy(update={"seed": 8})
    moved = {s.id: s.split for s in load(source(tmp_path / "all.jsonl", id="id"), split=other)}
    assert moved != sides(rows, "again.jsonl"), "the split's seed decides"


def test_shares_are_those_of_the_recipe(tmp_path):
    rows = [{"id": i, "question": f"{i}?", "group": i} for i in range(4000)]
    path = jsonl(tmp_path / "a.jsonl", rows)
    for split in (Split(test=0.2), Split(test=0.1, validation=0.3), Split(test=0.0), Split(test=1.0)):
        counts = Counter(s.split for s in load(source(path, id="id", group="group"), split=split))
        for side, share in (("test", split.test), ("validation", split.validation)):
            expected, spread = 4000 * share, (4000 * share * (1 - share)) ** 0.5
            assert abs(counts[side] - expected) <= 4 * spread, (side, counts)


def test_the_fingerprint_changes_with_any_seed(tmp_path):
    def of(rows, split=None, **more):
        return load(source(jsonl(tmp_path / "a.jsonl", rows), id="id", **more), split=split).fingerprint

    first = of(ROWS)
    assert of(ROWS) == first
    changed = [*ROWS[:5], {**ROWS[5], "question": "Another?"}, *ROWS[6:]]
    others = [of(changed), of(ROWS[:-1]), of(ROWS[::-1]), of(ROWS, reference="answer"), of(ROWS, Split(test=0.9))]
    assert len({first, *others}) == 1 + len(others)


def changes(tmp_path, before, after, **columns) -> list[str]:
    """The reported changes of a run whose seeds were `before` and are now `after`. `before` and `after` map a file name
    to rows.
    """
    kept = []
    for rows_of in (before, after):
        folder = tmp_path / f"run{len(kept)}"
        folder.mkdir()
        load(*(source(jsonl(tmp_path / name, rows), **columns) for name, rows in rows_of.items())).rows.write(folder)
        kept.append(RowHashes.read(folder))
    return changed_rows(*kept)


@pytest.mark.parametrize(
    ("after", "columns", "words"),
    [
        ([*ROWS, {"id": "x", "question": "x?"}], {"id": "id"}, ["q.jsonl: 1 row added"]),
        (ROWS[2:], {"id": "id"}, ["q.jsonl: 2 rows removed"]),
        ([{**ROWS[0], "question": "Z?"}, *ROWS[1:]], {"id": "id"}, ["q.jsonl: 1 row changed"]),
        ([{**ROWS[0], "question": "Z?"}, *ROWS[1:]], {}, ["q.jsonl: 1 row changed"]),
        ([{**ROWS[0], "id": "y"}, *ROWS[2:]], {"id": "id"}, ["q.jsonl: 1 row added, 2 rows removed"]),
        (ROWS[::-1], {"id": "id"}, ["q.jsonl: the order of the rows changed"]),
        (ROWS, {"id": "id"}, []),
    ],
)
def test_what_changed_is_said_in_rows(tmp_path, after, columns, words):
    assert changes(tmp_path, {"q.jsonl": ROWS}, {"q.jsonl": after}, **columns) == words


def test_what_changed_is_said_by_file(tmp_path):
    before = {"a.jsonl": ROWS[:6], "b.jsonl": ROWS[6:9]}
    after = {"a.jsonl": ROWS[:5], "c.jsonl": ROWS[9:]}
    words = ["b.jsonl: no longer among the seeds", "a.jsonl: 1 row removed", "c.jsonl: new among the seeds"]
    assert changes(tmp_path, before, after, id="id") == words


def test_the_rows_of_each_file_are_compared_with_the_rows_of_that_file(tmp_path):
    before = {"a.jsonl": ROWS[:3], "b.jsonl": ROWS[3:7], "c.jsonl": ROWS[7:]}
    after = before | {"c.jsonl": [{**ROWS[7], "question": "Z?"}, *ROWS[8:], {"id": "x", "question": "x?"}]}
    assert changes(tmp_path, before, after, id="id") == ["c.jsonl: 1 row added, 1 row changed"]


def test_files_with_the_same_path_in_different_folders_have_numbered_names(tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    files = [jsonl(tmp_path / str(n) / "a.jsonl", ROWS[4 * n : 4 * n + 4]) for n in range(3)]
    assert [*load(*(source(path, id="id") for path in files)).rows.counts] == ["a.jsonl", "a.jsonl (2)", "a.jsonl (3)"]


def test_the_hashes_of_as_many_rows_as_the_limit_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.seeds.changes.LIMIT", len(ROWS))
    assert changes(tmp_path, {"a.jsonl": ROWS}, {"a.jsonl": ROWS[:11]}, id="id") == ["a.jsonl: 1 row removed"]


def test_of_many_rows_the_number_alone_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.seeds.changes.LIMIT", 10)
    assert changes(tmp_path, {"a.jsonl": ROWS}, {"a.jsonl": ROWS[:11]}, id="id") == ["a.jsonl: 12 rows became 11"]
    assert (tmp_path / "run0" / ".seed-rows").stat().st_size < 200
    (tmp_path / "run0" / ".seed-rows").write_bytes(b"{}")
    assert RowHashes.read(tmp_path / "run0") is None
