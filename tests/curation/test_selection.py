"""The selection keeps the rows with the best known score, one row of each planted cluster, and the right number of rows
of each stratum. The selection never rejects a row that is held out, keeps groups whole, and depends only on the rows.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from support.corpora import contents, corpus_of, curating, parts, row

import synthgen
from synthgen.curation import job
from synthgen.curation.preview import preview
from synthgen.curation.selection import kernels, spread
from synthgen.curation.selection.parts import divided
from synthgen.errors import RecipeError
from synthgen.recipe import Recipe
from synthgen.recipe import curate as curate_section
from synthgen.records import Record

OWN = pa.schema([("level", pa.int64()), ("topic", pa.string())])


def scored(number: int, value: float | None, **more) -> Record:
    scores = [] if value is None else [{"name": "quality", "value": value}]
    return row(f"Text number {number}.", number, scores=scores, **more)


def chosen(run, recipe: Recipe, name: str = "curated", **options) -> tuple[list[str], dict[str, Record]]:
    """The ids of the kept rows of `train`, and the rejected rows."""
    synthgen.curate(recipe, run, run / name, **options)
    kept, rejected = parts(run, name)
    return [i for i, record in kept.items() if record.split == "train"], rejected


BEST = {"by": "score", "score": "quality"}


def test_the_rows_with_the_best_score_are_kept(tmp_path):
    values = [0.3, 0.9, None, 0.1, 0.7, 0.5, None, 0.8]
    rows = [scored(n, value) for n, value in enumerate(values)]
    rows += [scored(8, None, split="test"), scored(9, -5.0, split="validation")]
    run = corpus_of(tmp_path / "run", rows)
    ids, rejected = chosen(run, curating(select={**BEST, "rows": 3}))
    assert ids == ["r1", "r4", "r7"]
    assert set(parts(run)[0]) == {*ids, "r8", "r9"}, "rows that are held out stay"
    (verdict,) = rejected["r5"].verdicts
    assert (verdict["check"], verdict["rule"], verdict["teaches"]) == ("select", "select", "nothing")
    assert (verdict["score"], verdict["threshold"], verdict["matched_id"]) == (0.5, 0.7, None)
    assert verdict["reason"] == "place 4 of 8 by quality; 3 are kept"
    (verdict,) = rejected["r2"].verdicts
    assert (verdict["score"], verdict["threshold"]) == (None, 0.7)
    assert verdict["reason"] == "it has no score quality, so it comes last; 3 are kept"
    lowest, _ = chosen(run, curating(select={**BEST, "lowest": True, "rows": 2}), "lowest")
    assert lowest == ["r0", "r3"]
    most, _ = chosen(run, curating(select={**BEST, "rows": 7}), "most")
    assert len(most) == 7
    assert {"r2", "r6"} - {*most}, "a row without a score goes first"


def test_scores_of_checks_are_known_and_the_last_of_a_name_counts(tmp_path):
    texts = ["one two three", "one", "one two three four", "one two"]
    old = [{"name": "length", "value": 100.0 - n} for n in range(4)]
    rows = [row(text, n, scores=[old[n]]) for n, text in enumerate(texts)]
    run = corpus_of(tmp_path / "run", rows)
    ids, _ = chosen(run, curating(select={"by": "score", "score": "length", "rows": 2}))
    assert ids == ["r0", "r2"]


def test_a_score_that_no_row_has_is_refused(tmp_path):
    run = corpus_of(tmp_path / "run", [scored(0, 1.0), row("x", 1, split="test")])
    with pytest.raises(RecipeError, match="no row has the score 'beauty'"):
        synthgen.curate(curating(select={"by": "score", "score": "beauty", "rows": 1}), run)
    held_out = corpus_of(tmp_path / "held-out", [scored(0, None, split="test")])
    assert synthgen.curate(curating(select={**BEST, "rows": 1}), held_out).counts["kept"] == 1


@pytest.mark.parametrize("by", [BEST, {"by": "random"}, {"by": "spread"}])
def test_a_number_that_is_not_smaller_keeps_all(tmp_path, by):
    run = corpus_of(tmp_path / "run", [scored(n, 1.0) for n in range(5)])
    for name, number in (("same", {"rows": 5}), ("more", {"rows": 6}), ("all", {"share": 1.0})):
        assert len(chosen(run, curating(select={**by, **number}), name)[0]) == 5


def test_a_share_is_of_the_rows_that_are_left_in_train(tmp_path):
    rows = [scored(n, float(n), finish_reason="length" if n >= 100 else "stop") for n in range(150)]
    rows += [scored(n, 0.0, split="test") for n in range(150, 200)]
    run = corpus_of(tmp_path / "run", rows, size=60)
    assert len(chosen(run, curating(select={**BEST, "share": 0.29}))[0]) == 29
    assert len(chosen(run, curating(select={"by": "random", "share": 0.999}), "most")[0]) == 99


def test_copies_do_not_use_up_the_number(tmp_path):
    rows = [scored(n, 9.0, completion=[{"role": "assistant", "content": "the same"}]) for n in range(20)]
    run = corpus_of(tmp_path / "run", [*rows, *(scored(n, float(n) / 100) for n in range(20, 25))], size=5)
    ids, rejected = chosen(run, curating(select={**BEST, "rows": 3}))
    assert ids == ["r0", "r23", "r24"]
    assert Counter(v["check"] for r in rejected.values() for v in r.verdicts) == {"duplicates": 19, "select": 3}


def test_random_rows_are_the_same_for_any_order_and_grow_with_the_number(tmp_path):
    rows = [scored(n, None) for n in range(300)]
    run = corpus_of(tmp_path / "run", rows, size=300)
    few, rejected = chosen(run, curating(select={"by": "random", "rows": 30}), "few")
    many, _ = chosen(run, curating(select={"by": "random", "rows": 90}), "many")
    other, _ = chosen(run, curating(select={"by": "random", "rows": 30, "seed": 1}), "other")
    assert (len(few), len(many), len(other)) == (30, 90, 30)
    assert set(few) < set(many)
    assert len(set(few) & set(other)) < 15
    halves = Counter(int(i[1:]) < 150 for i in many)
    assert 25 < halves[True] < 65
    places = {v["reason"] for r in rejected.values() for v in r.verdicts}
    assert len(places) == 270
    assert "place 31 of 300 in a random order; 30 are kept" in places
    mixed = corpus_of(tmp_path / "mixed", random.Random(4).sample(rows, len(rows)), size=80)
    assert set(chosen(mixed, curating(select={"by": "random", "rows": 30}))[0]) == set(few)
    ties = corpus_of(tmp_path / "ties", [scored(n, 1.0) for n in range(300)], size=300)
    assert set(chosen(ties, curating(select={**BEST, "rows": 30}))[0]) == set(few), "rows with the same score"


def test_the_parts_of_strata():
    assert divided([50, 30, 20], 10, "proportional") == [5, 3, 2]
    assert divided([6, 6, 2], 10, "proportional") == [4, 4, 2], "the remainders are 4, 4 and 6 of 14"
    assert divided([100, 2, 50], 30, "equal") == [14, 2, 14]
    assert divided([5, 5, 5], 8, "equal") == [3, 3, 2]
    assert divided([], 8, "equal") == divided([], 8, "proportional") == []
    draw = random.Random(0)
    for shares, _ in itertools.product(("proportional", "equal"), range(200)):
        sizes = [draw.randrange(12) for _ in range(draw.randrange(1, 7))]
        number = draw.randrange(60)
        found = divided(sizes, number, shares)
        assert sum(found) == min(number, sum(sizes))
        assert all(0 <= part <= size for part, size in zip(found, sizes, strict=True))
        if shares == "equal":
            full = [part for part, size in zip(found, sizes, strict=True) if part < size]
            assert not full or max(found) <= max(full) + 1
            assert not full or max(full) - min(full) <= 1
        else:
            exact = [size * min(number, sum(sizes)) / max(sum(sizes), 1) for size in sizes]
            assert all(abs(part - whole) < 1 for part, whole in zip(found, exact, strict=True))


def test_strata_get_their_parts_and_choose_by_themselves(tmp_path):
    topics = [None] * 4 + ["art"] * 60 + ["law"] * 36
    rows = [scored(n, float(n % 60), own={"level": n % 2, "topic": topic}) for n, topic in enumerate(topics)]
    run = corpus_of(tmp_path / "run", rows, size=30, own=OWN)
    topic_of = {f"r{n}": topic for n, topic in enumerate(topics)}
    for name, shares, expected in [
        ("p", "proportional", {None: 2, "art": 30, "law": 18}),
        ("e", "equal", {None: 4, "art": 23, "law": 23}),
    ]:
        settings = {**BEST, "rows": 50, "column": "topic", "shares": shares}
        ids, rejected = chosen(run, curating(select=settings), name)
        assert Counter(topic_of[i] for i in ids) == expected
        for topic in topic_of.values():
            kept = [r for r in rows if topic_of[r.id] == topic and r.id in ids]
            lost = [r for r in rows if topic_of[r.id] == topic and r.id in rejected]
            least = min(r.scores[0]["value"] for r in kept)
            assert all(r.scores[0]["value"] <= least for r in lost)
            assert all(rejected[r.id].verdicts[0]["threshold"] == least for r in lost)
    reasons = {v["reason"] for r in rejected.values() for v in r.verdicts}
    assert "place 24 of 60 by quality among rows with topic 'art'; 23 are kept" in reasons
    _, rejected = chosen(run, curating(select={"by": "random", "rows": 50, "column": "topic"}), "random")
    assert Counter(topic_of[i] for i in rejected) == {None: 2, "art": 30, "law": 18}, "the control arm has these parts"
    assert any("among rows without topic" in v["reason"] for r in rejected.values() for v in r.verdicts)
    numbers, _ = chosen(run, curating(select={"by": "random", "rows": 10, "column": "level"}), "numbers")
    assert Counter(int(i[1:]) % 2 for i in numbers) == {0: 5, 1: 5}


@pytest.mark.parametrize(
    ("column", "message"), [("scores", "cannot be strata"), ("colour", "reads the column 'colour', which .* not have")]
)
def test_a_column_that_names_no_strata_is_refused(tmp_path, column, message):
    run = corpus_of(tmp_path / "run", [scored(0, 1.0)])
    with pytest.raises(RecipeError, match=message):
        synthgen.curate(curating(select={"by": "random", "rows": 1, "column": column}), run)


def clusters(count: int, size: int) -> list[Record]:
    """`count` clusters of `size` rows. Rows of one cluster differ in one of twelve words, and clusters have no word in
    common. The first cluster has ten times as many rows as the others.
    """
    rows = []
    for cluster in range(count):
        for number in range(size * (10 if cluster == 0 else 1)):
            words = [f"c{cluster}w{n}" for n in range(11)] + [f"c{cluster}own{number}"]
            rows.append(row(" ".join(words), len(rows), own={"level": cluster, "topic": None}))
    return random.Random(0).sample(rows, len(rows))


def test_spread_keeps_one_row_of_each_cluster(tmp_path):
    rows = clusters(12, 8)
    run = corpus_of(tmp_path / "run", rows, size=50, own=OWN)
    cluster_of = {r.id: r.own["level"] for r in rows}
    settings = {"by": "spread", "rows": 12, "of": "completion"}
    ids, rejected = chosen(run, curating(select=settings))
    assert sorted(cluster_of[i] for i in ids) == list(range(12))
    for record in rejected.values():
        (verdict,) = record.verdicts
        assert cluster_of[verdict["matched_id"]] == cluster_of[record.id], "the nearest kept row"
        assert verdict["matched_id"] in ids
        assert 0 <= verdict["score"] < 0.2 < 0.6 < verdict["threshold"] < 1.4
        assert verdict["reason"] == f"distance {verdict['score']:.2f} to the nearest kept row; 12 are kept"
    drawn, _ = chosen(run, curating(select={"by": "random", "rows": 12}), "drawn")
    assert len({cluster_of[i] for i in drawn}) < 10, "a random choice misses clusters"
    other, _ = chosen(run, curating(select={**settings, "seed": 5}), "other")
    assert sorted(cluster_of[i] for i in other) == list(range(12))
    assert other != ids
    shown = synthgen.show(run, rejected=True, rule="select", n=1).text()
    assert "compared with r" in shown
    assert "[-c" in shown


def test_the_compiled_choice_is_that_of_the_definition():
    """Each further unit is the unit with the largest distance to its nearest chosen unit. The slow code here finds it
    by comparing all units.
    """
    draw = np.random.default_rng(1)
    vectors = draw.integers(-60, 60, (70, kernels.WIDTH)).astype(np.int8)
    vectors[10] = vectors[20]
    size, key = np.ones(70, np.int64), draw.integers(0, 1 << 60, 70).astype(np.uint64)
    wide = vectors.astype(np.int64)
    apart = ((wide[:, None] - wide[None]) ** 2).sum(-1)
    for number in (0, 1, 5, 69, 70, 99):
        taken, distance, nearest, radius = spread.farthest(vectors, size, key, number)
        order = [int(key.argmin())][:number]
        while len(order) < min(number, 70):
            left = [n for n in range(70) if n not in order]
            order.append(max(left, key=lambda n: (apart[n, order].min(), -n)))
        assert np.flatnonzero(taken).tolist() == sorted(order)
        if order:
            assert distance == pytest.approx(apart[:, order].min(1) / (2 * 127**2))
            assert (apart[np.arange(70), nearest] == apart[:, order].min(1)).all()
            assert set(nearest) <= set(order)
        if len(order) > 1:
            assert radius == pytest.approx(apart[order[-1], order[:-1]].min() / (2 * 127**2))
            assert distance[~taken].max(initial=0) <= radius
        else:
            assert np.isnan(radius)


def test_the_vectors_of_texts():
    """Order, case and repetition of words do not change the vector. A text without words has the same distance to every
    text with words.
    """
    texts = ["one two three", "THREE, two: one one one!", "one two four", "five six seven", "", " - "]
    batch = pa.record_batch({"prompt.said": pa.array(texts), "completion.said": pa.array([""] * 6)})
    data = spread.hashed(batch, "prompt").buffers()[1]
    vectors = np.frombuffer(data, np.int8).reshape(6, -1).astype(int)
    apart = ((vectors[:, None] - vectors[None]) ** 2).sum(-1) / (2 * 127**2)
    assert apart[0, 1] == 0
    assert apart[0, 2] == pytest.approx(1 / 3, abs=0.02)
    assert apart[0, 3] == pytest.approx(1, abs=0.02)
    assert apart[0, 4] == pytest.approx(0.5, abs=0.02)


def grouped(count: int) -> list[Record]:
    """Rows of all splits, most of them in groups of two to four, which are not neighbors."""
    draw = random.Random(6)
    rows = []
    for number in range(count):
        group = f"g{draw.randrange(count // 3)}" if draw.random() < 0.7 else None
        split = "test" if draw.random() < 0.1 else "train"
        value = None if draw.random() < 0.2 else float(draw.randrange(40))
        words = " ".join(f"w{draw.randrange(30)}" for _ in range(8))
        scores = [] if value is None else [{"name": "quality", "value": value}]
        more = {"own": {"level": number % 3, "topic": f"t{number % 2}"}, "scores": scores}
        rows.append(row(f"{words} {number}", number, group_id=group, split=split, **more))
    return rows


CHOICES = {
    "score": BEST,
    "random": {"by": "random"},
    "spread": {"by": "spread"},
    "strata": {**BEST, "column": "topic", "shares": "equal"},
}


@pytest.mark.parametrize("name", CHOICES)
def test_groups_are_whole_and_held_out_rows_stay(tmp_path, name):
    rows = grouped(150)
    run = corpus_of(tmp_path / "run", rows, size=80, own=OWN)
    straddling = {r.group_id for r in rows if r.split == "test" and r.group_id}
    bound = {r.id for r in rows if r.split == "train" and r.group_id in straddling}
    assert bound
    for number in (len(bound), 75):
        ids, rejected = chosen(run, curating(select={**CHOICES[name], "rows": number}), f"{name}-{number}")
        assert len(ids) + len(rejected) == sum(r.split == "train" for r in rows)
        assert bound <= set(ids)
        assert number - 3 <= len(ids) <= number, "no unit of the size that is left was passed over"
        sides: dict[str, set[bool]] = {}
        for r in rows:
            if r.group_id:
                sides.setdefault(r.group_id, set()).add(r.id in rejected)
        assert all(len(side) == 1 for side in sides.values())
        assert {v["check"] for r in rejected.values() for v in r.verdicts} == {"select"}


def test_the_score_of_a_group_is_the_mean_of_its_rows(tmp_path):
    values = {"a": [9.0, 1.0], "b": [6.0, None], "c": [5.5, 5.5], "d": [None, None]}
    pairs = [(group, value) for group, both in values.items() for value in both]
    rows = [scored(n, value, group_id=group) for n, (group, value) in enumerate(pairs)]
    run = corpus_of(tmp_path / "run", rows, size=3)
    ids, rejected = chosen(run, curating(select={**BEST, "rows": 5}))
    assert ids == ["r2", "r3", "r4", "r5"], "b, then c; a does not fit any more, and neither does d"
    (verdict,) = rejected["r0"].verdicts
    assert (verdict["score"], verdict["threshold"]) == (5.0, 5.5)
    assert verdict["reason"] == "place 3 of 4 by quality; 2 are kept"


@pytest.mark.parametrize("name", CHOICES)
def test_the_result_does_not_depend_on_workers_or_shards(tmp_path, monkeypatch, name):
    rows = sorted(grouped(90), key=lambda r: r.split != "train")
    found, files = [], []
    for size, task_rows, workers in [
        (200, 8192, 1),
        (7, 1, 1),
        (7, 16, 1),
        *([(7, 16, 2)] if name == "spread" else []),
    ]:
        monkeypatch.setattr(job, "TASK_ROWS", task_rows)
        run = corpus_of(tmp_path / f"{size}-{task_rows}-{workers}", rows, size=size, own=OWN)
        recipe = curating(select={**CHOICES[name], "rows": 45, "seed": 3})
        ids, rejected = chosen(run, recipe, workers=workers)
        found.append((ids, {i: r.verdicts for i, r in rejected.items()}))
        files.append(contents(run / "curated"))
    assert all(each == found[0] for each in found)
    assert files[1] == files[-1]


def test_what_is_not_selected_is_counted(tmp_path):
    run = corpus_of(tmp_path / "run", [scored(n, float(n)) for n in range(10)])
    done = synthgen.curate(curating(select={**BEST, "rows": 4}), run)
    assert (done.counts["kept"], done.counts["rejected"], done.rejected_by) == (4, 6, {"select": 6})
    assert "rejected by: select 6" in synthgen.show(run).text()
    assert "place 10 of 10 by quality; 4 are kept" in synthgen.report(run).path.read_text()
    with pytest.raises(synthgen.errors.RunChanged):
        synthgen.curate(curating(select={**BEST, "rows": 5}), run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "random"}, "give either `rows` or `share`"),
        ({"by": "random", "rows": 3, "share": 0.5}, "give either `rows` or `share`"),
        ({"by": "score", "rows": 3}, "name the score"),
        ({"by": "random", "rows": 3, "score": "x"}, "are about `by: score`"),
        ({"by": "spread", "rows": 3, "lowest": True}, "are about `by: score`"),
        ({"rows": 3}, "Field required"),
        (True, "give its settings: 'by'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        curating(select=settings)


def test_spread_needs_numba_and_the_others_do_not(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    curate_section.check_installed(curating(select={"by": "random", "rows": 3}).curate)
    with pytest.raises(RecipeError, match="'spread' needs numba"):
        curate_section.check_installed(curating(select={"by": "spread", "rows": 3}).curate)


def test_a_plan_selects_in_proportion(tmp_path, monkeypatch):
    monkeypatch.setattr("synthgen.curation.preview.ROWS", 40)
    run = corpus_of(tmp_path / "run", [scored(n, float(n)) for n in range(200)], size=20)
    source = run / "generated"
    done = preview(curating(select={**BEST, "rows": 50}), source)
    assert (done.rows, done.kept) == (40, 10)
    assert [(one.rule, one.count) for one in done.effects] == [("select", 30)]
    assert "select keeps 10 rows of `train` in the sample, in proportion to 50 of all rows." in done.text()
    unknown = preview(curating(select={**BEST, "rows": 50}), source, partial=True)
    assert (unknown.kept, unknown.of, unknown.effects) == (40, None, ())
    assert "select was left out, because the number of all rows is not known." in unknown.text()
    share = preview(curating(select={**BEST, "share": 0.25}), source, partial=True)
    assert (share.kept, share.note) == (10, "")
