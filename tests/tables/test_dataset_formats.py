"""A dataset format that a user adds is read, trained on and shown, without a change of the package."""

from __future__ import annotations

import json

from synthgen.datasets import Turns, open_dataset, records
from synthgen.recipe import SeedSource, Split
from synthgen.tables.formats import DATASET_FORMATS, DatasetFormat


def is_toy(row) -> bool:
    return "ask" in row


def toy(row) -> list[Turns]:
    """A row with a question, a good answer and a bad answer."""
    if not row.get("good"):
        raise ValueError("no good answer")
    prompt = [{"role": "user", "content": row["ask"]}]
    sides = (("chosen", "good"), ("rejected", "bad"))
    return [Turns(prompt, [{"role": "assistant", "content": row[name]}], role) for role, name in sides]


def test_a_format_added_from_outside_is_read(tmp_path, monkeypatch):
    entry = DatasetFormat(about="ask, good, bad", recognize=is_toy, read=toy, columns=("ask", "good", "bad"))
    monkeypatch.setitem(DATASET_FORMATS, "toy", entry)
    rows = [{"ask": f"q{n}", "good": "yes", "bad": "no", "id": f"i{n}", "level": n} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = open_dataset(SeedSource(path=str(tmp_path / "rows.jsonl"), license="CC0-1.0", source="s"))
    assert (dataset.format, dataset.rows) == ("toy", 3)
    found = [record for _, record in records(dataset, "t", Split())]
    assert [r.id for r in found[:3]] == ["i0-chosen", "i0-rejected", "i1-chosen"]
    assert [(r.group_id, r.pair_role, r.text) for r in found[:2]] == [("i0", "chosen", "yes"), ("i0", "rejected", "no")]
    assert [r.own for r in found[:3]] == [{"level": 0}, {"level": 0}, {"level": 1}]
    assert found[0].split == found[1].split
