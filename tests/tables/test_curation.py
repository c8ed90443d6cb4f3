"""A user can add an edit, a check and a sweep without changing the package. The recipe accepts their keys,
their verdicts are written, and `show` and the report page count them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from support.corpora import contents, corpus_of, curating, parts, row

import synthgen
from synthgen import corpus
from synthgen.curation import job
from synthgen.curation.lists import appended
from synthgen.errors import RecipeError
from synthgen.recipe import CurateSection
from synthgen.records import SCHEMA
from synthgen.tables.curation import CHECKS, EDITS, SWEEPS, Check, Edit, Sweep
from synthgen.tables.section import Section


class Tail(Section):
    """The settings of the toy edit: the word that it cuts off."""

    word: str = " END"


def cut(batch: pa.RecordBatch, section: Tail, services) -> pa.RecordBatch:
    """Cuts a word off the end of completions, and records this in `edits`."""
    completions, rows, entries = batch["completion"].to_pylist(), [], []
    for number, messages in enumerate(completions):
        text = messages[-1]["content"]
        if text.endswith(section.word):
            messages[-1]["content"] = text.removesuffix(section.word)
            rows.append(number)
            span = {"start": len(messages[-1]["content"]), "end": len(text)}
            entries.append({"edit": "cut", **span, "before_sha256": hashlib.sha256(text.encode()).hexdigest()})
    edits = batch["edits"]
    edits = appended(edits, [(np.array(rows, np.int64), pa.array(entries, edits.type.value_type))])
    changed = pa.array(completions, batch["completion"].type)
    return pa.RecordBatch.from_arrays([changed, edits], names=["completion", "edits"])


class Letters(Section):
    """The number of letters of the longest completion that the toy check keeps."""

    most: int = 12


def short(batch: pa.RecordBatch, section: Letters, services) -> synthgen.Verdicts:
    """Rejects long completions. The score is the number of letters."""
    lengths = np.array([len(text) for text in batch["completion.text"].to_pylist()], float)
    rejected = {
        row: synthgen.Rejection(f"{lengths[row]:.0f} letters", lengths[row], "most", section.most, teaches="all")
        for row in np.flatnonzero(lengths > section.most).tolist()
    }
    return synthgen.Verdicts(rejected, {"letters": lengths})


class Alike(Section):
    """Number of letters at the beginning that two completions must have in common."""

    letters: int = 3


def first_letters(batch: pa.RecordBatch, section: Alike, services) -> pa.Table:
    """Two keys for each row: a key from the row's first letters, and a key that no other row has."""
    texts = batch["completion.plain"].to_pylist()
    keys = [hashlib.blake2b(text[:2].encode(), digest_size=8).digest() for text in texts]
    own = [hashlib.blake2b(f"{number}".encode(), digest_size=8).digest() for number in batch["row"].to_pylist()]
    rows = pa.concat_arrays([batch["row"], batch["row"]])
    return pa.table({"key": pa.array([*keys, *own], pa.binary(8)), "row": rows})


def likely(signatures: pa.Table, section: Alike, services) -> pa.Table:
    """Every pair of rows with the same key."""
    members: dict[bytes, list[int]] = {}
    for key, number in zip(signatures["key"].to_pylist(), signatures["row"].to_pylist(), strict=True):
        members.setdefault(key, []).append(number)
    pairs = [(b, a) for rows in members.values() for i, a in enumerate(sorted(rows)) for b in sorted(rows)[i + 1 :]]
    return pa.table(
        {"row": pa.array([p[0] for p in pairs], pa.int64()), "twin": pa.array([p[1] for p in pairs], pa.int64())}
    )


def proven(pairs: pa.Table, texts, section: Alike, services) -> pa.Table:
    """Pairs of rows whose completions begin alike. The score is the number of common letters."""
    rows, twins = (np.array(pairs[name].to_pylist(), np.int64) for name in ("row", "twin"))
    left, right = texts(rows)["completion.plain"].to_pylist(), texts(twins)["completion.plain"].to_pylist()
    scores = [
        next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 99)
        for a, b in zip(left, right, strict=True)
    ]
    table = pairs.append_column("score", pa.array(scores, pa.float64()))
    return table.filter(pa.array([score >= section.letters for score in scores], pa.bool_()))


def first_of_each(pairs: pa.Table, order, section: Alike, services) -> pa.Table:
    """Rejects each row that forms a pair with a kept row, and names the first of these kept rows as the reason."""
    gone: dict[int, dict] = {}
    for pair in sorted(pairs.to_pylist(), key=lambda p: (p["row"], p["twin"])):
        if pair["twin"] not in gone and pair["row"] not in gone:
            gone[pair["row"]] = {**pair, "threshold": float(section.letters)}
    names = [("row", pa.int64()), ("twin", pa.int64()), ("score", pa.float64()), ("threshold", pa.float64())]
    return pa.Table.from_pylist(list(gone.values()), schema=pa.schema(names))


CUT = Edit(about="Cut a word.", run=cut, columns=("completion",), changes=("completion",), section=Tail)
SHORT = Check(about="Short.", run=short, columns=("completion.text",), section=Letters, shorthand="most")
ALIKE = Sweep(
    about="Drop rows that begin alike.",
    signature=first_letters,
    candidates=likely,
    verify=proven,
    resolve=first_of_each,
    columns=("completion.plain",),
    section=Alike,
    reason="begins like {matched_id}: {score:.0f} letters of {threshold:.0f}",
    teaches="nothing",
)


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(EDITS, "cut", CUT)
    monkeypatch.setitem(CHECKS, "short", SHORT)
    monkeypatch.setitem(SWEEPS, "alike", ALIKE)


def rows() -> list:
    texts = ["apple pie END", "a long line of letters", "apricot", "applause END", "Apple tart", "banana", "band END"]
    return [row(text, number, token_ids=[1, 2], prompt_token_ids=[3]) for number, text in enumerate(texts)]


def test_rules_added_from_outside_work_end_to_end(tmp_path, toys):
    run = corpus_of(tmp_path, rows(), size=2)
    done = synthgen.curate(curating(cut=True, alike={"letters": 4}), run)
    kept, rejected = parts(run)
    assert {i: r.text for i, r in kept.items()} == {"r0": "apple pie", "r2": "apricot", "r5": "banana", "r6": "band"}
    assert {i: [v["check"] for v in r.verdicts] for i, r in rejected.items()} == {
        "r1": ["short"],
        "r3": ["alike"],
        "r4": ["alike"],
    }
    (long,), (alike,) = rejected["r1"].verdicts, rejected["r3"].verdicts
    assert (long["rule"], long["score"], long["threshold"], long["teaches"]) == ("most", 22.0, 12.0, "all")
    assert (alike["matched_id"], alike["score"], alike["threshold"], alike["teaches"]) == ("r0", 4.0, 4.0, "nothing")
    assert alike["reason"] == "begins like r0: 4 letters of 4"
    assert {s["name"]: s["value"] for s in kept["r0"].scores}["letters"] == 9.0
    assert done.rejected_by == {"alike": 2, "short": 1}
    assert done.counts["edited"] == 3
    manifest = corpus.manifest(run / "curated")
    assert manifest["thresholds"]["short"] == {"most": 12}
    shown = synthgen.show(run, rejected=True).text()
    assert "rejected by short: 22 letters" in shown
    assert "rejected by: alike 2, short 1" in shown
    page = synthgen.report(run).path.read_text()
    assert "begins like r0: 4 letters of 4" in page


def test_an_edit_says_what_it_changed_and_what_no_longer_holds(tmp_path, toys):
    run = corpus_of(tmp_path, rows(), size=2)
    synthgen.curate(curating(cut=True, short=False, alike=False), run)
    kept, _ = parts(run)
    (edit,) = kept["r0"].edits
    assert (edit["edit"], edit["start"], edit["end"]) == ("cut", 9, 13)
    assert edit["before_sha256"] == hashlib.sha256(b"apple pie END").hexdigest()
    assert (kept["r0"].token_ids, kept["r0"].prompt_token_ids) == (None, [3])
    assert (kept["r2"].edits, kept["r2"].token_ids) == ([], [1, 2])


def test_two_workers_and_any_shards_give_the_same(tmp_path, toys, monkeypatch):
    recipe = curating(cut=True, alike={"letters": 4})
    synthgen.curate(recipe, corpus_of(tmp_path / "whole", rows(), size=9), workers=1)
    monkeypatch.setattr(job, "TASK_ROWS", 2)
    for workers in (1, 2):
        synthgen.curate(recipe, corpus_of(tmp_path / str(workers), rows(), size=2), workers=workers)
    assert contents(tmp_path / "1" / "curated") == contents(tmp_path / "2" / "curated")
    assert parts(tmp_path / "whole") == parts(tmp_path / "1")


def test_the_recipe_knows_the_keys_of_rules_added_from_outside(toys):
    section = CurateSection.model_validate({"short": 5, "cut": {"word": "x"}})
    assert section.settings("short") == Letters(most=5)
    assert section.settings("cut") == Tail(word="x")
    assert CurateSection().settings("cut") is None  # edits are off by default
    assert CurateSection().settings("short") == Letters()
    assert CurateSection.model_validate({"short": None}).settings("short") is None
    assert CurateSection.model_validate(section.model_dump(mode="json")) == section
    with pytest.raises(ValidationError) as caught:
        CurateSection.model_validate({"short": {"most": "many"}})
    assert caught.value.errors()[0]["loc"] == ("short", "most")


def test_a_key_that_no_rule_has_is_refused():
    for key in ["short", "min_words"]:
        with pytest.raises(ValidationError) as caught:
            CurateSection.model_validate({key: 1})
        assert (caught.value.errors()[0]["loc"], caught.value.errors()[0]["type"]) == ((key,), "extra_forbidden")


def test_the_users_own_columns_are_read_and_carried(tmp_path, monkeypatch):
    own = pa.schema([("level", pa.int64()), ("id", pa.string())])
    monkeypatch.setitem(CHECKS, "level", Check(about="Low levels.", run=low, columns=("level", "source_id")))
    records = [row(f"x {n}", n, own={"level": n, "source_id": f"own {n}"}) for n in range(4)]
    run = corpus_of(tmp_path / "run", records, size=2, own=own)
    synthgen.curate(curating(), run)
    kept, rejected = parts(run)
    assert [r.own for r in kept.values()] == [{"level": n, "source_id": f"own {n}"} for n in range(2)]
    assert [r.own for r in rejected.values()] == [{"level": n, "source_id": f"own {n}"} for n in (2, 3)]
    for part in ("data", "rejected"):
        for name in corpus.shards(run / "curated", part):
            table = corpus.read_shard(run / "curated" / part / f"{name}.parquet")
            assert table.column_names == [*SCHEMA.names, "level", "source_id"]
    plain = corpus_of(tmp_path / "plain", [row("x", 0)])
    with pytest.raises(RecipeError, match=r"curate\.level reads the column 'level', which"):
        synthgen.curate(curating(), plain)


def low(batch: pa.RecordBatch, section, services) -> synthgen.Verdicts:
    """Rejects rows whose column `level` is above 1."""
    pairs = enumerate(zip(batch["level"].to_pylist(), batch["source_id"].to_pylist(), strict=True))
    return synthgen.Verdicts({n: synthgen.Rejection(f"{name} is high") for n, (level, name) in pairs if level > 1})
