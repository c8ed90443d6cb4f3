"""The divergence that a recipe names, from its file to the student's weights."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

import synthgen
from distill import train
from synthgen.errors import CorpusError, RecipeError
from synthgen.teachers.transformers import LocalModel

TOPK = {"kind": "topk", "k": 16, "temperature": 2.0}
STUDENT = {"student": {"kind": "decoder", "layers": 1}, "batch_size": 5, "max_steps": 3, "baseline": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny):
    """A function that trains on one small curated corpus with top-k logits: (weights, metrics)."""
    import yaml

    folder = tmp_path_factory.mktemp("topk")
    (folder / "seeds.jsonl").write_text(
        "".join(json.dumps({"id": f"q{i}", "q": f"{i} plus {i}?"}) + "\n" for i in range(16))
    )
    (folder / "user.j2").write_text("{{ q }}\n")
    recipe = {
        "task": "sums",
        "seeds": [{"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}],
        "teacher": {"model": str(tiny), "license": "Apache-2.0", "batch_size": 8, "device": "cpu"},
        "generate": {"max_new_tokens": 6, "shard_size": 8},
        "logits": TOPK,
        "curate": {"truncated": False, "repetition": None, "length": None},
    }
    path = folder / "recipe.yaml"

    def load(more: dict) -> synthgen.Recipe:
        path.write_text(yaml.safe_dump({**recipe, **more}))
        return synthgen.load_recipe(path)

    teacher = LocalModel.open(load({}).teacher)

    def trained(name: str, corpus: str = "run", **section):
        if not (folder / corpus).exists():
            made = load({"logits": {"kind": "sampled", "draws": 20} if corpus == "drawn" else TOPK})
            synthgen.generate(made, folder / corpus)
            synthgen.curate(made, folder / corpus)
        out = train(load({"train": {**STUDENT, **section}}), folder / corpus, folder / name, teacher=teacher)
        return load_file(out / "model.safetensors"), [
            json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()
        ]

    return trained


def test_every_divergence_trains_and_differs(run):
    found = {name: run(name, loss=name)[1] for name in ("forward_kl", "reverse_kl", "jsd", "skew_kl", "adaptive_kl")}
    firsts = {round(metrics[0]["distillation"], 5) for metrics in found.values()}
    assert len(firsts) == len(found)
    assert all(m["loss"] == m["loss"] and len(metrics) > 1 for metrics in found.values() for m in metrics)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_micro_batches_add_up_to_the_step(run, dtype):
    whole, metrics = run(f"whole-{dtype}", loss="reverse_kl", dtype=dtype)
    split, split_metrics = run(f"split-{dtype}", loss="reverse_kl", micro_batch_size=2, dtype=dtype)
    near = 1e-3 if dtype == "float32" else 0.02
    for a, b in zip(metrics, split_metrics, strict=True):
        assert a["tokens"] == b["tokens"]
        assert all(a[key] == pytest.approx(b[key], rel=near) for key in ("loss", "distillation", "cross_entropy"))
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=near)
    if dtype == "float32":  # AdamW's first steps are signs: a gradient of nearly zero may go either way
        moved = max(float((whole[name] - split[name]).abs().max()) for name in whole)
        assert moved < 2 * 3 * 3e-4


@pytest.mark.parametrize(
    ("logits", "section", "says"),
    [
        ({"kind": "sampled"}, {"loss": "reverse_kl"}, "histogram with zeros"),
        ({"kind": "sampled"}, {"loss": "jsd"}, "not linear"),
        (TOPK, {"loss": "mse"}, "those left out are not known"),
        (TOPK, {"loss": "jsd", "alpha": 0.1}, "'alpha' belongs to loss skew_kl"),
        (TOPK, {"beta": 0.5}, "'beta' belongs to loss jsd"),
        (TOPK, {"loss": "skew_kl", "alpha": 1.0}, "less than 1"),
        (TOPK, {"loss": "kl"}, "forward_kl"),
    ],
)
def test_what_is_not_defined_is_refused_in_one_line(task, logits, section, says):
    with pytest.raises(RecipeError) as caught:
        synthgen.load_recipe(task(logits=logits, train={**STUDENT, **section}))
    assert says in str(caught.value.message)
    assert "\n" not in caught.value.message


def test_a_corpus_of_another_kind_than_the_recipe_says(run):
    """The recipe's top-k would do, but the corpus was made with draws."""
    with pytest.raises(CorpusError, match="histogram with zeros"):
        run("mismatch", corpus="drawn", loss="reverse_kl")
