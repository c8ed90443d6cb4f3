"""Curves: the share of the seeds grows, each share contains the smaller shares, and the last point is the run's own
student.
"""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from support.measuring import measure_here
from support.small import small_runs
from support.unaudited import curve, train

import synthgen
from distill.data import rows
from synthgen.errors import UserError
from synthgen.recipe import TrainSection


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_runs(tmp_path_factory.mktemp("curve"))


def test_a_smaller_share_is_part_of_a_larger_one(made):
    _, run = made("shares", seeds=60, curate={"answer": False, "truncated": False, "duplicates": False})
    found = {share: {r.id for r, _ in rows(run / "curated", "train", share)} for share in (0.1, 0.3, 0.6, 1.0)}
    assert found[0.1] < found[0.3] < found[0.6] < found[1.0]
    seeds = {share: {r.seed_id for r, _ in rows(run / "curated", "train", share)} for share in found}
    assert 0.15 < len(seeds[0.3]) / len(seeds[1.0]) < 0.45
    held_out = [{r.id for r, _ in rows(run / "curated", "test", share)} for share in (0.1, 1.0)]
    assert held_out[0] == held_out[1] != set()
    for share, some in seeds.items():  # a share has all rows of a seed (two samples), or no rows of it
        assert found[share] == {r.id for r, _ in rows(run / "curated", "train") if r.seed_id in some}


def test_a_curve_of_a_decoder(made, monkeypatch):
    measure_here(monkeypatch)
    recipe, run = made("decoder", seeds=40, split={"test": 0.3}, evaluate={"max_prompts": 4, "max_new_tokens": 8})
    section = recipe.train.model_dump(exclude_none=True) | {
        "max_steps": None,
        "num_train_epochs": 1,
    }
    recipe = recipe.model_copy(
        update={"train": TrainSection.model_validate({**section, "student": recipe.train.student})}
    )
    train(recipe, run)
    before = (run / "student" / "model.safetensors").stat().st_mtime_ns
    found = curve(recipe, run, [0.3])
    small, whole = found.points
    assert (small.share, whole.share) == (0.3, 1.0)
    assert small.rows == len(rows(run / "curated", "train", 0.3)) < whole.rows
    assert small.steps < whole.steps
    assert {"kl", "agreement", "nll", "calibration"} <= set(small.table["distilled"])
    assert found.measure == "kl"
    assert [line.split()[0] for line in found.text().splitlines()] == ["share", "30%", "100%"]
    assert (run / "student" / "model.safetensors").stat().st_mtime_ns == before, "the run's student is a point"
    evaluation = json.loads((run / "student" / "evaluation.json").read_text())
    assert asdict(whole.table["distilled"]["kl"]) == evaluation["table"]["distilled"]["kl"]
    times = {p: p.stat().st_mtime_ns for p in (run / "student" / "curve").rglob("*.safetensors")}
    assert curve(recipe, run, [0.3]) == found
    assert {p: p.stat().st_mtime_ns for p in (run / "student" / "curve").rglob("*.safetensors")} == times != {}
    page = synthgen.report(run).path.read_text()
    assert "Effect of more training data" in page
    assert f">{small.rows:,}<" in page


def test_shares_that_are_none(made):
    recipe, run = made("none", seeds=40, split={"test": 0.3})
    for shares in ([0.0], [1.5], [-1]):
        with pytest.raises(UserError, match="more than 0 and at most 1"):
            curve(recipe, run, shares)
