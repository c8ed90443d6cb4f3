"""`synthgen audit --keep-allowed`: the rows that are allowed become a new run, which passes the audit."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from support.corpora import contents, corpus_of, curating, parts, row
from support.removing import SECRET, places_of

import distill
import synthgen
from synthgen import corpus, logits
from synthgen.auditing.sides import choose, total
from synthgen.cli import main
from synthgen.curation.allowed import keep_allowed
from synthgen.errors import GateDenied, RunChanged
from synthgen.recipe import Recipe, dump_recipe
from synthgen.records import to_table


def source(name: str, license: str = "MIT", role: str = "seed") -> dict:
    nothing = {"terms_date": None, "made_by": None, "account": None, "tools": []}
    return {"id": name, "role": role, "license": license, **nothing}


FREE, NC, NOBODY = source("free"), source("nc", "CC-BY-NC-4.0"), source("x", "nobody-knows", "generator")
BY_SA, NC_SA = source("wiki", "cc-by-sa-4.0"), source("forum", "cc-by-nc-sa-4.0")


def recipe_of(**audit) -> Recipe:
    return Recipe.model_validate({**curating().model_dump(), "audit": audit})


def run_of(folder, *sources, size: int = 3, **audit):
    """A curated run with a row for each list of sources."""
    rows = [row(f"text {n}", n, sources=some, answer=str(n)) for n, some in enumerate(sources)]
    recipe = recipe_of(**audit)
    run = corpus_of(folder, rows, size)
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    synthgen.curate(recipe, run)
    return recipe, run


def test_rows_that_may_not_go_keep_their_reason_and_lose_their_text(tmp_path):
    recipe, run = run_of(tmp_path / "run", [FREE], [NC], [FREE, NOBODY], [], [FREE])
    done = keep_allowed(recipe, run, tmp_path / "out")
    kept, rejected = parts(tmp_path / "out")
    assert list(kept) == ["r0", "r4"]
    assert kept == {name: one for name, one in parts(run)[0].items() if name in kept}
    assert {name: one.verdicts[0]["reason"] for name, one in rejected.items()} == {
        "r1": "DENY for 'nc' (seed, CC-BY-NC-4.0): commercial use is not granted; training is allowed for research "
        "only; whether a student inherits these terms is contested",
        "r2": "UNKNOWN for 'x' (generator, nobody-knows): terms 'nobody-knows' are not in the catalog; whether a "
        "student inherits these terms is contested",
        "r3": "the row names no sources, so its licenses are not known",
    }
    for one in rejected.values():
        (verdict,) = one.verdicts
        assert (verdict["check"], verdict["teaches"]) == ("license", "nothing")
        assert (one.prompt, one.completion, one.answer, one.rationale, one.token_ids) == ([], [], None, None, None)
        assert one.sources == parts(run)[0][one.id].sources
    assert (done.kept, sum(done.left_out.values()), done.report.status) == (2, 3, "ALLOW")
    found = corpus.verify(tmp_path / "out" / "curated")
    assert (found["counts"], found["rejected_by"]) == ({"kept": 2, "rejected": 3}, {"license": 3})
    assert [path for path, data in contents(tmp_path / "out" / "curated").items() if b"text 1" in data] == []


def test_the_new_run_is_a_run_for_every_command(tmp_path):
    _, run = run_of(tmp_path / "run", [FREE], [NC], [FREE])
    runner, out = CliRunner(), tmp_path / "out"
    assert runner.invoke(main, ["audit", str(run)]).exit_code == 1
    done = runner.invoke(main, ["audit", str(run), "--keep-allowed", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 rows kept, 1 left out" in done.output
    assert "kept 2, rejected 1" in done.output
    before = contents(out / "curated")
    assert runner.invoke(main, ["audit", str(out)]).exit_code == 0
    shown = runner.invoke(main, ["show", str(out), "--rejected", "--rule", "license"])
    assert "CC-BY-NC-4.0" in shown.output
    exported = runner.invoke(main, ["export", str(out), "--to", "messages", "-o", str(tmp_path / "rows.jsonl")])
    assert exported.exit_code == 0, exported.output
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
    again = runner.invoke(main, ["audit", str(run), "--keep-allowed", "-o", str(out)])
    assert again.exit_code == 0, again.output
    assert contents(out / "curated") == before
    twice = runner.invoke(main, ["audit", str(out), "--keep-allowed", "-o", str(tmp_path / "twice")])
    assert twice.exit_code == 0, twice.output
    assert parts(tmp_path / "twice") == parts(out)
    for wrong in (["--keep-allowed"], ["-o", str(out)], ["--fresh"]):
        assert runner.invoke(main, ["audit", str(run), *wrong]).exit_code == 2
    json.loads(runner.invoke(main, ["audit", str(run), "--keep-allowed", "-o", str(out), "--json"]).stdout)


@pytest.mark.parametrize(
    ("rows", "stay", "gone"),
    [
        ([[BY_SA], [NC_SA], [NC_SA, BY_SA], [BY_SA]], ["r0", "r3"], "CC-BY-NC-SA-4.0"),
        ([[BY_SA], [NC_SA], [NC_SA], [FREE]], ["r1", "r2", "r3"], "CC-BY-SA-4.0"),
    ],
)
def test_of_two_sides_the_one_with_more_rows_stays(tmp_path, rows, stay, gone):
    recipe, run = run_of(tmp_path / "run", *rows, use="research")
    done = keep_allowed(recipe, run, tmp_path / "out")
    assert list(parts(tmp_path / "out")[0]) == stay
    assert done.report.passed
    (side,) = done.sides
    assert f"left out 1 kept rows under {gone}, because no license is allowed by the share-alike" in side
    assert "no other choice keeps more rows" in side
    reasons = [one.verdicts[0]["reason"] for one in parts(tmp_path / "out")[1].values()]
    assert any(reason.startswith("left out for the sake of the other rows: no license") for reason in reasons)


def random_conflicts(draw: random.Random) -> tuple[list, dict, frozenset]:
    duties = [("share_alike", name) for name in "abcdef"]
    found = [frozenset(draw.sample(duties, draw.choice([2, 2, 3]))) for _ in range(draw.randrange(1, 5))]
    found = [one for one in found if not any(other < one for other in found)]
    rows = {frozenset(draw.sample(duties, draw.randrange(3))): (draw.randrange(9), draw.randrange(3)) for _ in range(8)}
    return found, rows, frozenset(draw.sample(duties, draw.randrange(2)))


def test_the_choice_of_sides_is_the_best_of_all_choices():
    for seed in range(300):
        found, rows, fixed = random_conflicts(random.Random(seed))
        every = sorted({duty for one in found for duty in one} - fixed)
        costs = [
            total(count for duties, count in rows.items() if duties & set(gone))
            for size in range(len(every) + 1)
            for gone in itertools.combinations(every, size)
            if all(one & set(gone) for one in found)
        ]
        choice = choose(found, rows, fixed)
        assert (choice is None) == (not costs), seed
        if choice is not None:
            assert choice.proven
            assert not choice.left_out & fixed
            assert all(one & choice.left_out for one in found)
            assert total(count for duties, count in rows.items() if duties & choice.left_out) == min(costs), seed
            assert choose(found[::-1], dict(reversed(rows.items())), fixed) == choice


def test_the_sources_of_the_student_stay(tmp_path):
    """The student's checkpoint is under the GPL, so the rows of Gemma are left out, although they are the majority. If
    the checkpoint itself is denied, leaving out rows does not help.
    """
    rows = [[source("g", "gemma", "generator")]] * 3 + [[FREE]]
    _, run = run_of(tmp_path / "run", *rows)
    for license, kept in [("GPL-3.0-only", ["r3"]), ("CC-BY-NC-4.0", None)]:
        train = {"student": {"kind": "decoder", "model": "org/base", "license": license}, "kd_weight": 0}
        values = curating().model_dump(exclude={"teacher", "logits", "strategy", "generate"})
        teacher = {"engine": "transformers", "model": "some/model", "license": "Apache-2.0"}
        recipe = Recipe.model_validate({**values, "teacher": teacher, "train": train})
        if kept is None:
            with pytest.raises(GateDenied, match=r"no choice of rows passes the audit.*org/base"):
                keep_allowed(recipe, run, tmp_path / "denied")
            assert not (tmp_path / "denied" / "curated").exists()
        else:
            assert keep_allowed(recipe, run, tmp_path / "out").report.passed
            assert list(parts(tmp_path / "out")[0]) == kept


def test_rows_of_a_group_stay_or_go_together(tmp_path):
    rows = [
        row(f"text {n}", n, sources=[NC if n == 1 else FREE], group_id=group, pair_role=role)
        for n, (group, role) in enumerate([("g", "chosen"), ("g", "rejected"), ("h", "chosen"), ("h", "rejected")])
    ]
    run = corpus_of(tmp_path / "run", rows, size=1)
    keep_allowed(curating(), run, tmp_path / "out")
    kept, rejected = parts(tmp_path / "out")
    assert list(kept) == ["r2", "r3"]
    assert "because another row of the group" in rejected["r0"].verdicts[0]["reason"]


def test_rows_that_curation_rejected_stay_rejected(tmp_path):
    rows = [row("a", n, sources=[NC if n == 1 else FREE], finish_reason="length") for n in range(2)]
    run = corpus_of(tmp_path / "run", [*rows, row("b", 2, sources=[FREE])])
    synthgen.curate(curating(), run)
    done = keep_allowed(curating(), run, tmp_path / "out")
    kept, rejected = parts(tmp_path / "out")
    assert list(kept) == ["r2"]
    assert [[one["check"] for one in row.verdicts] for row in rejected.values()] == [
        ["truncated"],
        ["truncated", "license"],
    ]
    assert [bool(row.completion) for row in rejected.values()] == [True, False]
    assert done.left_out == {}
    assert done.report.rows == {"ALLOW": 2}


def test_reasons_of_curation_that_quote_a_row_go_with_its_text(tmp_path):
    """An example of such a reason is "ends in the middle of a sentence: '… of Zanzibarish and'"."""
    text = f"One thing is said. Another is said. A third is said. Then comes the word {SECRET} and"
    rows = [row(text, 0, sources=[NC], finish_reason=None), row("b", 1, sources=[FREE])]
    run = corpus_of(tmp_path / "run", rows)
    synthgen.curate(curating(length=None, truncated={"from_text": True}), run)
    assert SECRET in parts(run)[1]["r0"].verdicts[0]["reason"]
    keep_allowed(curating(), run, tmp_path / "out")
    [denied] = parts(tmp_path / "out")[1].values()
    assert [one["check"] for one in denied.verdicts] == ["truncated", "license"]
    assert places_of(SECRET, tmp_path / "out") == []


def test_rows_without_text_are_no_rows_about_other_people(tmp_path):
    """Rows that were left out have no text, so the test `selection` must not count them as dropped rows that mention no
    group.
    """
    names = [("She", "He")[n % 2] for n in range(200)]
    rows = [row(f"{name} came home {n}.", n, sources=[(FREE, NC)[n // 2 % 2]]) for n, name in enumerate(names)]
    recipe = recipe_of(bias={"dimensions": ["gender"]})
    run = corpus_of(tmp_path / "run", rows, size=50)
    synthgen.curate(curating(length=None, duplicates=False), run)
    done = keep_allowed(recipe, run, tmp_path / "out")
    assert done.kept == 100
    found = [one for one in done.report.audits["bias"].measurements if one.name == "selection"]
    assert [one for one in found if one.outcome == "found"] == []
    assert done.report.audits["bias"].figures["bias"]["rows"] == 100


def test_a_row_with_text_counts_although_it_says_that_it_was_left_out(tmp_path):
    """A user may have written the verdict "left out" into the corpus by hand."""
    verdict = {"check": "license", "rule": "license", "score": None, "threshold": None, "matched_id": None}
    verdict |= {"span": None, "reason": "", "teaches": "nothing"}
    run = corpus_of(tmp_path / "run", [row("a", 0, sources=[FREE])])
    synthgen.curate(curating(), run)
    folder = run / "curated"
    (folder / "rejected").mkdir(exist_ok=True)
    table = to_table([row("b", 1, sources=[NC], verdicts=[verdict])])
    shutil.rmtree(folder / "data")
    corpus.commit(folder, "train-00000", {"data": to_table([row("a", 0, sources=[FREE])]), "rejected": table})
    facts = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    corpus.finish(folder, "curated", {**facts, "rejected_by": {"license": 1}}, ["train-00000"])
    assert synthgen.audit(curating(), run).rows == {"ALLOW": 1, "DENY": 1}


def test_interrupted_and_repeated_it_makes_the_same_bytes(tmp_path, monkeypatch):
    recipe, run = run_of(tmp_path / "run", *[[FREE], [NC]] * 4, size=2)
    keep_allowed(recipe, run, tmp_path / "whole")
    commit, written = corpus.commit, []

    def dies(folder, name, tables):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        commit(folder, name, tables)

    monkeypatch.setattr(corpus, "commit", dies)
    with pytest.raises(KeyboardInterrupt):
        keep_allowed(recipe, run, tmp_path / "out")
    monkeypatch.setattr(corpus, "commit", commit)
    assert len(list((tmp_path / "out" / "curated" / "data").glob("*.parquet"))) == 2
    keep_allowed(recipe, run, tmp_path / "out")
    assert contents(tmp_path / "out" / "curated") == contents(tmp_path / "whole" / "curated")
    with pytest.raises(RunChanged, match="made from other inputs"):
        keep_allowed(recipe, run, tmp_path / "out", use="research")
    keep_allowed(recipe, run, tmp_path / "out", use="research", fresh=True)
    assert len(parts(tmp_path / "out")[0]) == 8


def test_no_row_that_may_go_is_an_error(tmp_path):
    recipe, run = run_of(tmp_path / "run", [NC])
    with pytest.raises(GateDenied, match=r"no row of .* may be used as intended: DENY for 'nc'"):
        keep_allowed(recipe, run, tmp_path / "out")
    assert not (tmp_path / "out" / "curated").exists()


def repaired(finished, folder) -> Path:
    """A run with distributions, in which half of the rows of one shard are denied, and its repaired copy in `out`."""
    run = folder / "run"
    shutil.copytree(finished.run / "generated", run / "generated")
    shutil.copy(finished.run / "recipe.yaml", run / "recipe.yaml")
    recipe = synthgen.load_recipe(run / "recipe.yaml")
    generated = run / "generated"
    name = corpus.shards(generated)[0]
    [stored] = (generated / "logits").glob(f"*/{name}.parquet")
    table, distributions = corpus.read_shard(generated / "data" / f"{name}.parquet"), corpus.read(stored)
    place = table.schema.get_field_index("sources")
    denied = [[*some, NC] if n % 2 else some for n, some in enumerate(table["sources"].to_pylist())]
    table = table.set_column(place, table.schema.field(place), pa.array(denied, table.schema.field(place).type))
    corpus.commit(generated, name, {"data": table, f"logits/{stored.parent.name}": distributions})
    facts = json.loads((generated / "manifest.json").read_text())
    corpus.finish(generated, "generated", facts, corpus.shards(generated))
    synthgen.curate(recipe, run)
    keep_allowed(recipe, run, folder / "out")
    return folder / "out"


def test_the_distributions_of_rows_that_are_left_out_are_gone(finished, tmp_path):
    out = repaired(finished, tmp_path)
    kept, rejected = parts(out)
    gone = {one.id for one in rejected.values() if one.verdicts[-1]["check"] == "license"}
    ids = [one for path in sorted((out / "curated" / "logits").glob("*/*.parquet")) for one in logits.read(path).ids]
    assert gone
    assert set(ids) == ({*kept, *rejected} - gone)


@pytest.mark.slow
def test_a_student_learns_from_the_distributions_of_the_rows_that_stay(finished, tmp_path):
    out = repaired(finished, tmp_path)
    settings = ["train.max_steps=1", "train.baseline=false"]
    student = distill.train(synthgen.load_recipe(out / "recipe.yaml", settings), out)
    assert student.folder == out / "student"
    assert student.training.rows
