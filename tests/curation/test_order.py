"""The order of curation. A row is not rejected as a copy of a rejected row. Groups are kept or rejected whole. The
result depends only on the rows. After an error, the same command does not repeat the finished tasks.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support.corpora import contents, corpus_of, curating, parts, row

import synthgen
from synthgen import corpus
from synthgen.curation import job, sweeps
from synthgen.errors import CorpusError
from synthgen.records import Record
from synthgen.tables.curation import CHECKS, Check


def reasons(rejected) -> dict[str, list[tuple[str, str | None]]]:
    return {i: [(v["check"], v["matched_id"]) for v in r.verdicts] for i, r in rejected.items()}


def test_copies_are_dropped_for_the_first_of_them(tmp_path):
    other = [{"role": "user", "content": "another question"}]
    rows = [row("Nine apples.", 0), row("ten", 1), row("nine   APPLES.", 2), row("Nine apples.", 3, prompt=other)]
    run = corpus_of(tmp_path, [*rows, row(" Nine apples. ", 4)], size=2)
    done = synthgen.curate(curating(duplicates={"ignore_case": True}), run)
    kept, rejected = parts(run)
    assert list(kept) == ["r0", "r1", "r3"]
    assert reasons(rejected) == {"r2": [("duplicates", "r0")], "r4": [("duplicates", "r0")]}
    (verdict,) = rejected["r4"].verdicts
    assert (verdict["reason"], verdict["rule"], verdict["teaches"]) == ("same as r0", "duplicates", "distribution")
    assert (done.counts["kept"], done.counts["rejected"], done.rejected_by) == (3, 2, {"duplicates": 2})


def calling(arguments: str, number: int) -> Record:
    """A row whose completion calls a tool."""
    calls = json.dumps([{"type": "function", "function": {"name": "weather", "arguments": arguments}}])
    return row("", number, completion=[{"role": "assistant", "content": None, "tool_calls": calls}], answer=None)


def test_what_makes_two_rows_the_same(tmp_path):
    """Rows differ if their tool calls, reasoning, roles or upper case differ. The Unicode composition of a letter and
    characters without width make no difference.
    """
    thought = [{"role": "assistant", "content": "nine", "reasoning_content": "3 times 3"}]
    system = [{"role": "system", "content": "question"}]
    rows = [
        row("Café Nine", 0),
        row("cafe\u0301 nine", 1),
        row("Cafe\u0301\u200b \u00ad Nine", 2),
        row("nine", 3),
        row("nine", 4, completion=thought),
        row("nine", 5, prompt=system),
        calling('{"city": "Rome"}', 6),
        calling('{"city": "Oslo"}', 7),
        calling('{"city": "Rome"}', 8),
    ]
    run = corpus_of(tmp_path, rows, size=4)
    synthgen.curate(curating(length=False), run)
    assert reasons(parts(run)[1]) == {"r2": [("duplicates", "r0")], "r8": [("duplicates", "r6")]}
    synthgen.curate(curating(length=False, duplicates={"ignore_case": True}), run, run / "folded")
    assert set(parts(run, "folded")[1]) == {"r1", "r2", "r8"}


def test_a_damaged_result_is_made_again_only_when_asked(tmp_path):
    run = corpus_of(tmp_path, [row("one", 0), row("two", 1)], size=1)
    synthgen.curate(curating(), run)
    whole = contents(run / "curated")
    for name in ("data/train-00001.parquet", "rejected/train-00000.parquet"):
        (run / "curated" / name).write_bytes(b"PAR1")
        with pytest.raises(CorpusError, match="damaged"):
            synthgen.curate(curating(), run)
        synthgen.curate(curating(), run, repair=True)
        assert contents(run / "curated") == whole


def test_no_row_is_dropped_for_a_twin_that_was_rejected(tmp_path):
    rows = [row("Nine.", 0, finish_reason="length"), row("Nine.", 1), row("Nine.", 2)]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(), run)
    kept, rejected = parts(run)
    assert list(kept) == ["r1"]
    assert reasons(rejected) == {"r0": [("truncated", None)], "r2": [("duplicates", "r1")]}


def test_a_group_goes_whole_and_says_which_row_it_lost(tmp_path):
    rows = [
        row("one fish", 0, group_id="a"),
        row("two fish", 1, group_id="a", finish_reason="length"),
        row("red fish", 2, group_id="b"),
        row("blue fish", 3, group_id="b"),
        row("alone", 4),
    ]
    run = corpus_of(tmp_path, rows, size=1)
    synthgen.curate(curating(), run)
    kept, rejected = parts(run)
    assert list(kept) == ["r2", "r3", "r4"]
    assert reasons(rejected) == {"r0": [("group", "r1")], "r1": [("truncated", None)]}
    (verdict,) = rejected["r0"].verdicts
    expected = "its whole group is rejected, because r1 was rejected by truncated: cut off at max_new_tokens"
    assert verdict["reason"] == expected


def test_a_copy_in_a_group_takes_the_group_along(tmp_path):
    rows = [row("fish", 0), row("bird", 1, group_id="a"), row("fish", 2, group_id="a")]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(), run)
    _, rejected = parts(run)
    assert reasons(rejected) == {"r1": [("group", "r2")], "r2": [("duplicates", "r0")]}


def test_the_reason_of_a_group_is_found_in_every_task(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "TASK_ROWS", 2)
    rows = [row("fish", 0), row("cow", 1), row("bird", 2, group_id="a"), row("ant", 3, group_id="b")]
    rows += [row("fish", 4, group_id="a"), row("cow", 5, group_id="b"), row("cow", 6, group_id="b")]
    run = corpus_of(tmp_path, rows, size=1)
    synthgen.curate(curating(), run, workers=1)
    kept, rejected = parts(run)
    assert list(kept) == ["r0", "r1"]
    assert reasons(rejected)["r6"] == [("duplicates", "r1")]
    for lost, cause, twin in (("r2", "r4", "r0"), ("r3", "r5", "r1")):
        (verdict,) = rejected[lost].verdicts
        words = f"because {cause} was rejected by duplicates: same as {twin}"
        assert verdict["reason"] == f"its whole group is rejected, {words}"


def test_a_row_stays_when_its_twin_goes_with_its_group(tmp_path):
    """r0 is a copy of "fish", so its group, r0 and r1, is rejected. r1 was the first "bird". As r1 is rejected, r3, the
    second "bird", is kept.
    """
    rows = [row("fish", 9), row("fish", 0, group_id="a"), row("bird", 1, group_id="a"), row("bird", 3)]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(), run)
    kept, rejected = parts(run)
    assert list(kept) == ["r9", "r3"]
    assert reasons(rejected) == {"r0": [("duplicates", "r9")], "r1": [("group", "r0")]}


def test_a_row_stays_when_its_twin_went_with_its_group_before_the_sweep(tmp_path):
    rows = [row("fish", 0, group_id="a"), row("x", 1, group_id="a", finish_reason="length"), row("fish", 2)]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(), run)
    kept, _ = parts(run)
    assert list(kept) == ["r2"]


def many(count: int) -> list:
    """`count` rows of both splits. Copies, faults and groups are at random places."""
    draw = random.Random(3)
    rows = []
    for number in range(count):
        text = f"{draw.choice(['red', 'blue', 'old', 'new'])} {draw.choice(['fish', 'bird', 'dog'])} {number % 7}"
        group = f"g{draw.randrange(count // 6)}" if draw.random() < 0.3 else None
        reason = "length" if draw.random() < 0.1 else "stop"
        split = "test" if draw.random() < 0.3 else "train"
        rows.append(row(text, number, group_id=group, finish_reason=reason, split=split))
    return rows


def test_every_promise_holds_on_many_rows(tmp_path):
    rows = many(200)
    run = corpus_of(tmp_path, rows, size=7)
    synthgen.curate(curating(), run)
    kept, rejected = parts(run)
    assert set(kept) | set(rejected) == {r.id for r in rows}
    assert not set(kept) & set(rejected)
    texts = [r.text for r in kept.values()]
    assert len(set(texts)) == len(texts) > 10
    groups: dict[str | None, set[bool]] = {}
    for r in rows:
        groups.setdefault(r.group_id, set()).add(r.id in kept)
    assert all(len(sides) == 1 for group, sides in groups.items() if group)
    checks = {v["check"] for r in rejected.values() for v in r.verdicts}
    assert checks == {"truncated", "split_copies", "duplicates", "group"}
    for r in rejected.values():
        for v in r.verdicts:
            if v["check"] == "duplicates":
                assert kept[v["matched_id"]].text == r.text
            if v["check"] == "split_copies":
                twin = (kept | rejected)[v["matched_id"]]
                assert (twin.text, twin.split, r.split) == (r.text, "test", "train")
            if v["check"] == "group":
                lost = rejected[v["matched_id"]]
                assert lost.group_id == r.group_id
                assert lost.verdicts[0]["check"] != "group"


def test_the_result_does_not_depend_on_workers_tasks_or_parts(tmp_path, monkeypatch):
    """One worker and two workers write the same bytes. The sizes of shards, tasks and key partitions do not change the
    verdicts.
    """
    rows = sorted(many(60), key=lambda r: r.split != "train")
    results, files = [], []
    for size, task_rows, part_rows, workers in [
        (60, 8192, 1 << 19, 1),
        (4, 8, 9, 1),
        (4, 8, 9, 2),
        (7, 1, 1 << 19, 1),
    ]:
        monkeypatch.setattr(job, "TASK_ROWS", task_rows)
        monkeypatch.setattr(sweeps, "_PART_ROWS", part_rows)
        run = corpus_of(tmp_path / f"{size}-{task_rows}-{workers}", rows, size=size)
        synthgen.curate(curating(), run, workers=workers)
        kept, rejected = parts(run)
        results.append((list(kept), {i: r.verdicts for i, r in rejected.items()}, [r.scores for r in kept.values()]))
        files.append(contents(run / "curated"))
    assert all(result == results[0] for result in results)
    assert files[1] == files[2]


def test_a_run_that_failed_goes_on_from_its_steps(tmp_path, monkeypatch):
    """Rows of tasks that finished before an error are not judged again. No file of a step remains at the end."""
    monkeypatch.setattr(job, "TASK_ROWS", 4)
    log = tmp_path / "log"
    run = corpus_of(tmp_path / "run", [row(f"fish {n}", n) for n in range(12)], size=2)
    monkeypatch.setitem(CHECKS, "noting", Check(about="Notes rows.", run=noting(log, fails_at="r8"), columns=("id",)))
    with pytest.raises(CorpusError, match="on purpose"):
        synthgen.curate(curating(), run, workers=1)
    assert list((run / "curated").rglob("*.arrow"))
    monkeypatch.setitem(CHECKS, "noting", Check(about="Notes rows.", run=noting(log), columns=("id",)))
    synthgen.curate(curating(), run, workers=1)
    seen = log.read_text().split()
    assert seen == [*(f"r{n}" for n in range(10)), *(f"r{n}" for n in range(8, 12))]
    assert sorted(p.name for p in (run / "curated").iterdir()) == [
        *(".lock", "README.md", "data", "inputs.json", "manifest.json", "rejected")
    ]


def noting(log: Path, fails_at: str = ""):
    """A check that logs the ids that it receives, and fails when it receives a given id."""

    def check(batch, section, services):
        ids = batch["id"].to_pylist()
        log.write_text((log.read_text() if log.exists() else "") + "".join(f"{i}\n" for i in ids))
        if fails_at in ids:
            raise CorpusError("on purpose")
        return synthgen.Verdicts()

    return check


def test_shards_that_are_there_are_not_made_again(tmp_path):
    run = corpus_of(tmp_path, [row(f"fish {n}", n) for n in range(6)], size=2)
    recipe = curating()
    synthgen.curate(recipe, run)
    before = contents(run / "curated")
    (run / "curated" / "manifest.json").unlink()
    (run / "curated" / "data" / "train-00001.parquet").unlink()
    stays = run / "curated" / "data" / "train-00002.parquet"
    when = stays.stat().st_mtime_ns
    synthgen.curate(recipe, run)
    assert contents(run / "curated") == before
    assert stays.stat().st_mtime_ns == when


@pytest.mark.parametrize("rows", [[], [row("", 0)]])
def test_a_corpus_of_which_nothing_is_kept(tmp_path, rows):
    run = corpus_of(tmp_path, rows)
    done = synthgen.curate(curating(), run)
    assert (done.counts.get("kept"), done.counts.get("rejected")) == (0, len(rows))
    assert corpus.manifest(run / "curated")["counts"] == done.counts
    assert json.dumps(done.to_dict())
    assert "rejected" in done.text()


def test_a_curated_corpus_can_be_curated_again(tmp_path):
    """The kept rows are judged again. The kept rows keep their old scores, and the new scores are added after the old
    scores.
    """
    run = corpus_of(tmp_path / "run", [row("one fish", 0), row("two fish", 1), row("one fish", 2)])
    first = synthgen.curate(curating(), run)
    again = synthgen.curate(curating(length={"min_words": 3}), first.folder, tmp_path / "again")
    assert (again.counts["kept"], again.counts["rejected"]) == (0, 2)
    (_, rows) = next(corpus.records(again.folder, "rejected"))
    assert [s["name"] for s in rows[0].scores] == ["length", "repetition", "length", "repetition"]
    assert [v["rule"] for v in rows[0].verdicts] == ["min_words"]
