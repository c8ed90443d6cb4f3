"""A recipe's divergence, from the recipe's file to the student's weights."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support import unaudited
from support.small import small_task
from support.training import LOOSE, metrics_of, with_train

import synthgen
from synthgen.errors import CorpusError, RecipeError

TOPK = {"kind": "topk", "k": 16, "temperature": 2.0}
STUDENT = {"student": {"kind": "decoder", "layers": 1}, "batch_size": 5, "max_steps": 3, "baseline": False}


@pytest.fixture
def teach(small_run, tmp_path):
    """`teach(loss=…)` trains a student on a small corpus with top-k logits, and returns its folder."""
    recipe, run = small_run(logits=TOPK, seeds=16, curate=LOOSE)

    def train(**section) -> Path:
        name = "-".join(str(value) for value in section.values())
        return unaudited.train(with_train(recipe, {**STUDENT, **section}), run, tmp_path / name).folder

    return train


def test_every_divergence_trains_and_differs(teach):
    metrics = {
        name: metrics_of(teach(loss=name)) for name in ("forward_kl", "reverse_kl", "jsd", "skew_kl", "adaptive_kl")
    }
    firsts = {round(steps[0]["distillation"], 5) for steps in metrics.values()}
    assert len(firsts) == len(metrics)
    assert all(len(steps) > 1 and isfinite(step["loss"]) for steps in metrics.values() for step in steps)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_micro_batches_add_up_to_the_step(teach, dtype):
    students = [teach(loss="reverse_kl", dtype=dtype), teach(loss="reverse_kl", dtype=dtype, micro_batch_size=2)]
    near = 1e-3 if dtype == "float32" else 0.02
    for a, b in zip(*map(metrics_of, students), strict=True):
        assert a["tokens"] == b["tokens"]
        assert all(a[key] == pytest.approx(b[key], rel=near) for key in ("loss", "distillation", "cross_entropy"))
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=near)
    # AdamW's first updates depend only on the gradient's sign, so weights with nearly zero gradients may differ
    if dtype == "float32":
        whole, split = (load_file(folder / "model.safetensors") for folder in students)
        moved = max(float((whole[name] - split[name]).abs().max()) for name in whole)
        assert moved < 2 * 3 * 3e-4


@pytest.mark.parametrize(
    ("logits", "section", "says"),
    [
        ({"kind": "sampled"}, {"loss": "reverse_kl"}, "most tokens probability zero"),
        ({"kind": "sampled"}, {"loss": "jsd"}, "not linear"),
        (TOPK, {"loss": "mse"}, "leave most of them out"),
        (TOPK, {"loss": "jsd", "alpha": 0.1}, "'alpha' is only used by loss skew_kl"),
        (TOPK, {"beta": 0.5}, "'beta' is only used by loss jsd"),
        (TOPK, {"loss": "skew_kl", "alpha": 1.0}, "less than 1"),
        (TOPK, {"loss": "kl"}, "forward_kl"),
    ],
)
def test_what_is_not_defined_is_refused_in_one_line(tmp_path, logits, section, says):
    with pytest.raises(RecipeError) as caught:
        synthgen.load_recipe(small_task(tmp_path, tmp_path, logits=logits, train={**STUDENT, **section}))
    assert says in str(caught.value.message)
    assert "\n" not in caught.value.message


def test_a_corpus_of_another_kind_than_the_recipe_says(small_run, tmp_path):
    """The recipe says top-k, for which the loss is defined. The corpus was made with draws."""
    recipe, _ = small_run(logits=TOPK, seeds=16, curate=LOOSE)
    _, drawn = small_run(logits={"kind": "sampled", "draws": 20}, seeds=16, curate=LOOSE)
    with pytest.raises(CorpusError, match="most tokens probability zero"):
        unaudited.train(with_train(recipe, {**STUDENT, "loss": "reverse_kl"}), drawn, tmp_path / "student")
