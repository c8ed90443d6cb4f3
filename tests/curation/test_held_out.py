"""Rows of `train` that are the same as rows of `validation` or `test`, or nearly the same, are rejected. The held-out
rows stay, in whatever order the rows come.
"""

from __future__ import annotations

import random
import re

import pyarrow as pa
import pytest
from support.corpora import contents, corpus_of, curating, parts, row

import synthgen
from synthgen.curation import job
from synthgen.curation.held_out import is_held_out
from synthgen.errors import CorpusError
from synthgen.recipe import curate as curate_section
from synthgen.records import Record

VOCABULARY = [f"w{number}" for number in range(3000)]


def asked(prompt: str, number: int, split: str = "train", answer: str = "nine", **more) -> Record:
    return row(answer, number, split=split, prompt=[{"role": "user", "content": prompt}], **more)


def reasons(rejected: dict[str, Record]) -> dict[str, list[tuple[str, str | None]]]:
    return {i: [(v["check"], v["matched_id"]) for v in r.verdicts] for i, r in rejected.items()}


def test_a_copy_in_train_goes_and_the_row_that_is_held_out_stays(tmp_path):
    """By default, prompt and completion are compared. Without the rule, the sweep for duplicates would keep the first
    copy, which is in `train`.
    """
    rows = [
        asked("one fish", 0),
        asked("one  fish", 1, "test"),
        asked("red fish", 2),
        asked("red fish", 3, "validation"),
        asked("one fish", 4),
        asked("one fish", 5, "test"),
        asked("one fish", 6, answer="ten"),
    ]
    run = corpus_of(tmp_path, rows, size=2)
    done = synthgen.curate(curating(), run)
    kept, rejected = parts(run)
    assert set(kept) == {"r1", "r3", "r6"}
    assert reasons(rejected) == {
        "r0": [("split_copies", "r1")],
        "r4": [("split_copies", "r1")],
        "r2": [("split_copies", "r3")],
        "r5": [("duplicates", "r1")],
    }
    (verdict,) = rejected["r0"].verdicts
    assert (verdict["reason"], verdict["teaches"]) == ("same as r1, which is held out", "nothing")
    assert done.rejected_by == {"split_copies": 3, "duplicates": 1}
    synthgen.curate(curating(split_copies=False), run, run / "off")
    assert set(parts(run, "off")[0]) == {"r0", "r2", "r6"}


def test_copies_of_the_prompt_alone(tmp_path):
    """Rows without a prompt are not compared by prompt."""
    rows = [asked("one fish", 0), asked("one fish", 1, "test", answer="ten")]
    rows += [row("text", 2, prompt=[]), row("text", 3, prompt=[], split="test")]
    run = corpus_of(tmp_path, rows)
    for of, lost in (("row", {"r2"}), ("prompt", {"r0"}), ("completion", {"r2"})):
        out = run / of
        synthgen.curate(curating(split_copies={"of": of}, duplicates=False), run, out)
        assert set(parts(run, of)[1]) == lost


def similar(seed: int, count: int) -> list[Record]:
    """Rows of all splits. Prompts have 6 to 60 words, and many differ in a few words."""
    draw = random.Random(seed)
    rows, words = [], draw.choices(VOCABULARY, k=40)
    for number in range(count):
        if draw.random() < 0.4:
            words = draw.choices(VOCABULARY, k=draw.choice([6, 30, 60]))
        changed = list(words)
        for _ in range(draw.randrange(3)):
            changed[draw.randrange(len(changed))] = draw.choice(VOCABULARY)
        split = draw.choice(["train", "train", "train", "validation", "test"])
        reason = "length" if draw.random() < 0.1 else "stop"
        group = f"g{number // 2}" if draw.random() < 0.1 else None
        rows.append(asked(" ".join(changed), number, split, str(number), finish_reason=reason, group_id=group))
    return rows


def shingles(record: Record) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", record.prompt[0]["content"])
    return {tuple(words[at : at + 5]) for at in range(max(len(words) - 4, 1))}


def similarity(first: Record, second: Record) -> float:
    one, other = shingles(first), shingles(second)
    return len(one & other) / len(one | other)


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_every_twin_of_a_row_that_is_held_out_is_found(tmp_path, threshold):
    rows = similar(3, 250)
    run = corpus_of(tmp_path, rows, size=60)
    synthgen.curate(curating(split_twins=threshold, split_copies=False, length=False), run)
    kept, rejected = parts(run)
    held_out = [record for record in kept.values() if record.split != "train"]
    gone = {i: r for i, r in rejected.items() if r.verdicts[0]["check"] == "split_twins"}
    assert len(gone) > 15
    for record in gone.values():
        (verdict,) = record.verdicts
        twin = kept[verdict["matched_id"]]
        assert (record.split, twin.split != "train") == ("train", True)
        assert verdict["score"] == pytest.approx(similarity(record, twin))
        assert verdict["score"] >= threshold == verdict["threshold"]
        assert verdict["teaches"] == "nothing"
        reason = f"similarity {verdict['score']:.2f} to the held-out row {twin.id}, and the limit is {threshold:g}"
        assert verdict["reason"] == reason
    for record in kept.values():
        if record.split == "train":
            assert all(similarity(record, other) < threshold for other in held_out)


def test_rows_of_train_are_not_compared_with_each_other_and_rejected_rows_are_no_twins(tmp_path):
    text, other = " ".join(VOCABULARY[:40]), " ".join(VOCABULARY[50:90])
    rows = [asked(text, 0), asked(f"{text} end", 1, answer="ten")]
    rows += [asked(other, 2), asked(f"{other} end", 3, "test", finish_reason="length")]
    rows += [asked("one fish", 4, "test"), asked("one fish", 5, "test", group_id="g")]
    run = corpus_of(tmp_path, [*rows, asked(f"{other} the end", 6, "test", group_id="g")])
    synthgen.curate(curating(split_twins=True), run)
    kept, rejected = parts(run)
    assert set(kept) == {"r0", "r1", "r2", "r4"}
    assert [rejected[i].verdicts[0]["check"] for i in ("r3", "r5", "r6")] == ["truncated", "duplicates", "group"]


def test_of_near_duplicates_the_row_that_is_held_out_stays(tmp_path):
    text = " ".join(VOCABULARY[:40])
    rows = [asked(text, 0), asked(f"{text} end", 1, "test"), asked(f"{text} the end", 2, "test"), asked(f"a {text}", 3)]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(near_duplicates=True), run)
    assert reasons(parts(run)[1]) == {i: [("near_duplicates", "r1")] for i in ("r0", "r2", "r3")}


def test_workers_and_shards_do_not_change_the_result(tmp_path, monkeypatch):
    """The check for evaluation sets is on too, so that worker processes have to make its index."""
    monkeypatch.setattr(job, "TASK_ROWS", 50)
    rows = similar(5, 180)
    (tmp_path / "eval.txt").write_text("".join(f"{one.prompt[0]['content']}\n" for one in rows[::18]))
    sets = {"sets": [{"name": "eval", "path": str(tmp_path / "eval.txt")}]}
    rules = {"split_copies": {"of": "prompt"}, "split_twins": True, "near_duplicates": True, "decontamination": sets}
    recipe = curating(**rules, length=False)
    results, files = [], []
    for size, workers in ((200, 1), (60, 1), (60, 2)):
        run = corpus_of(tmp_path / f"{size}-{workers}", rows, size)
        done = synthgen.curate(recipe, run, workers=workers)
        kept, rejected = parts(run)
        results.append((sorted(kept), {i: r.verdicts for i, r in sorted(rejected.items())}))
        files.append(contents(run / "curated"))
    assert results[0] == results[1]
    assert files[1] == files[2]
    assert rules.keys() <= done.rejected_by.keys()


def test_a_row_without_a_split_is_refused():
    assert is_held_out(pa.array(["train", "validation", "test"])).to_pylist() == [False, True, True]
    with pytest.raises(CorpusError, match="a row of this corpus has no split"):
        is_held_out(pa.array(["train", None]))


def test_only_twins_need_numba(tmp_path, monkeypatch):
    real = curate_section.importlib.util.find_spec
    monkeypatch.setattr(
        curate_section.importlib.util, "find_spec", lambda name: None if name == "numba" else real(name)
    )
    run = corpus_of(tmp_path, [asked("one", 0), asked("one", 1, "test")])
    assert synthgen.curate(curating(split_copies={"of": "prompt"}), run).rejected_by == {"split_copies": 1}
    with pytest.raises(synthgen.errors.RecipeError, match=r"curate\.split_twins needs numba"):
        synthgen.curate(curating(split_twins=True), run, run / "near")
