"""Shows how `LEAST_MASS`, the bound on the labels' total probability, changes the results of the recipe `classify`.

    python benchmarks/label_mass.py [FOLDER] [--rows 240] [--seeds 3] [--bounds 0 0.01 0.02]

The recipe is run once for each bound. The teacher computes each distribution only once. Each student is compared with
the labels of all held-out seeds, including the seeds whose rows the bound excludes. `train.seed` takes `--seeds`
values. The runs are kept if FOLDER is given.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import distill
import synthgen
from distill.students.classifier import Classifier
from synthgen import corpus
from synthgen.lm.model import LanguageModel
from synthgen.teachers import labels as bound_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=240, help="number of seeds of the recipe")
    parser.add_argument("--seeds", type=int, default=3, help="number of students for each bound")
    parser.add_argument("--bounds", type=float, nargs="+", default=[0.0, 0.01, 0.02], help="the first must be 0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options.folder or Path(scratch), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Runs the recipe with each bound, and prints the table."""
    once(LanguageModel)
    recipe = synthgen.load_recipe("classify", [f"seeds.0.limit={options.rows}"])
    texts: list[str] = []
    right: list[str] = []
    print("bound  rows kept  right rows  accuracy of the student on all held-out seeds")
    for bound in options.bounds:
        bound_of.LEAST_MASS = bound
        run = folder / f"bound-{bound:g}"
        synthgen.generate(recipe, run)
        rows = [row for _, some in corpus.records(run / "generated") for row in some]
        if not texts:  # without a bound, every seed has a row
            held_out = [row for row in rows if row.split != "train"]
            texts = [str(row.prompt[-1]["content"]) for row in held_out]
            right = [row.reference[0] for row in held_out if row.reference]
        synthgen.curate(recipe, run)
        synthgen.audit(recipe, run)
        accuracies = [accuracy(recipe, run, seed, texts, right) for seed in range(options.seeds)]
        agree = np.mean([row.answer == row.reference[0] for row in rows if row.reference])
        found = f"{np.mean(accuracies):.1%} ± {np.std(accuracies):.1%}"
        print(f"{bound:5.2f}  {len(rows):9d}  {agree:10.1%}  {found}", flush=True)


def accuracy(recipe: synthgen.Recipe, run: Path, seed: int, texts: list[str], right: list[str]) -> float:
    """The share of held-out texts for which the student's most probable label is right."""
    assert recipe.train is not None
    trained = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
    distill.train(trained, run, fresh=True)
    student = Classifier.load(run / "student")
    best = student.predict(texts).argmax(-1)
    return float(np.mean([student.labels[n] == label for n, label in zip(best, right, strict=True)]))


def once(model: type[LanguageModel]) -> None:
    """Make a model's `label_probs` compute the result for a prompt only once in this process."""
    compute = model.label_probs
    known: dict[str, list[tuple[list[float], int]]] = {}

    def label_probs(
        self: LanguageModel, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
    ) -> list[tuple[list[float], int]]:
        key = str([list(prompts), list(labels)])
        if key not in known:
            known[key] = compute(self, prompts, labels)
        return known[key]

    model.label_probs = label_probs  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
