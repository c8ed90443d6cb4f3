"""The page shows rows from the whole corpus, and its counts are those of all rows."""

from __future__ import annotations

import pytest
from support.corpora import corpus_of, row

from synthgen import corpus
from synthgen.reporting.look import Seen, kinds, look


def seen(folder, records, labels=(), size=7) -> Seen:
    run = corpus_of(folder, records, size)
    return look(run / "generated", "data", corpus.manifest(run / "generated"), list(labels))


@pytest.mark.parametrize("count", [1, 5, 6, 7, 12, 40])
def test_rows_are_shown_from_the_beginning_to_the_end(tmp_path, count):
    found = seen(tmp_path, [row("x", n) for n in range(count)])
    places = [int(record.id[1:]) for record in found.few]
    assert len(places) == min(count, 6)
    assert places[0] == 0
    gaps = [after - before for before, after in zip(places, [*places[1:], count], strict=True)]
    assert 1 <= min(gaps) <= max(gaps) <= min(gaps) + 1, "spread evenly, and each row only once"


def test_every_row_is_counted(tmp_path):
    sides = [row("x", n, split="test" if n % 3 == 0 else "train", token_ids=[1] * (n % 4)) for n in range(20)]
    found = seen(tmp_path, sides)
    assert found.splits == {"train": 13, "test": 7}
    assert found.lengths == {0: 5, 1: 5, 2: 5, 3: 5}
    assert found.checked == {}


def score(kind: str, number: int, right: float | None, **more) -> object:
    scores = [] if right is None else [{"name": "other", "value": 0.0}, {"name": "answer", "value": right}]
    return row("x", number, seed_id=f"{kind}-{number}", scores=scores, **more)


def test_checked_answers_are_counted_by_kind(tmp_path):
    answers = [("sum", 1.0), ("sum", 0.0), ("sum", 1.0), ("difference-of-two", 0.0), ("sum", None), ("", 1.0)]
    records = [score(kind, n, right, reference=["b" if n % 2 else "a"]) for n, (kind, right) in enumerate(answers)]
    first = seen(tmp_path / "a", records)
    assert kinds(first) == [("difference-of-two", 0, 1), ("sum", 2, 3)]
    assert kinds(first, first) == [("difference-of-two", 0, 2), ("sum", 4, 6)]
    assert kinds(seen(tmp_path / "b", records, labels=["a", "b"])) == [("a", 2, 2), ("b", 1, 3)]


@pytest.mark.parametrize("count", [20, 21, 30])
def test_more_than_twenty_kinds_have_no_table(tmp_path, count):
    found = seen(tmp_path, [score(f"kind {n:02}", n, 1.0) for n in range(count)], size=100)
    assert kinds(found) == ([(f"kind {n:02}", 1, 1) for n in range(20)] if count == 20 else [])
