"""Helpers for tests of training: shared small runs, training that is cut short, and functions that read the results in
a student's folder.

student = student_of(recipe, run, tmp_path / "student", learning_rate=0.1)    # the folder
resumes_everywhere(lambda folder, ui: train(recipe, run, folder, ui=ui), tmp_path, cuts=[1, 3])
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import synthgen
from support import unaudited
from support.small import small_task, small_teacher
from synthgen import durable
from synthgen.recipe import Recipe, TrainSection
from synthgen.results.training import Training, read_training
from synthgen.ui import UI, Progress

FULL = {"kind": "topk", "k": 258, "temperature": 1.0}  # the whole vocabulary of the small teacher
LOOSE = {"answer": False, "truncated": False, "repetition": None, "length": None}  # curation keeps every row
HELD_OUT = {"test": 0.25, "validation": 0.25}

SmallRuns = Callable[..., tuple[Recipe, Path]]
"""`small_run(**sections)` returns recipe and run of a small teacher. The same sections give the same run."""


def shared_runs(folder: Path) -> SmallRuns:
    """Runs of one small teacher. Each run is generated and curated when it is first needed. Students must be written to
    another folder.
    """
    teacher = small_teacher(folder / "teacher")

    def make(**sections: Any) -> tuple[Recipe, Path]:
        made_by = {key: value for key, value in sections.items() if key not in ("train", "evaluate")}
        name = durable.digest(made_by)[:16]
        recipe = synthgen.load_recipe(small_task(folder / f"task-{name}", teacher, **sections))
        recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"batch_size": 64})})
        if not (folder / name / "curated" / "manifest.json").exists():
            synthgen.generate(recipe, folder / name)
            synthgen.curate(recipe, folder / name)
        return recipe, folder / name

    return make


def with_train(recipe: Recipe, section: dict[str, Any]) -> Recipe:
    """A copy of the recipe whose section `train` has the keys of `section`."""
    return recipe.model_copy(update={"train": TrainSection.model_validate(section)})


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """A copy of the recipe in which `changes` replace keys of the section `train`."""
    assert recipe.train is not None
    return with_train(recipe, recipe.train.model_dump(exclude_none=True) | changes)


def student_of(recipe: Recipe, run: Path, out: Path, **changes: Any) -> Path:
    """Trains a student with some keys of `train` changed, and returns its folder."""
    return unaudited.train(changed(recipe, **changes), run, out).folder


class Cut(UI):
    """Stops training after `steps` steps, as Ctrl-C does."""

    def __init__(self, steps: int) -> None:
        super().__init__(quiet=True)
        self.steps = steps

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Progress]:
        bar, limit = Progress(what, total, unit), self.steps

        def stop() -> None:
            if bar.done - bar.resumed >= limit:
                raise KeyboardInterrupt

        bar.show = stop
        yield bar


def resumes_everywhere(
    act: Callable[[Path, UI | None], Any], folder: Path, cuts: Iterable[int], again: Sequence[int] = ()
) -> Path:
    """Trains once without a cut. For each number in `cuts`, trains with one cut after that many steps. For each number
    in `again`, trains with a cut after every so many steps. Asserts that all files have the same bytes. Returns the
    folder of the training without a cut.
    """
    whole = folder / "whole"
    act(whole, None)
    names = [p.relative_to(whole) for p in whole.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert any(name.name == "model.safetensors" for name in names)
    for steps, often in (*((n, False) for n in cuts), *((n, True) for n in again)):
        student, count = folder / f"cut-{steps}-{often}", 0
        while True:
            try:
                act(student, Cut(steps) if often or not count else None)
                break
            except KeyboardInterrupt:
                count += 1
        assert count > 1 if often else count == 1, (steps, often, count)
        for name in names:
            assert (student / name).read_bytes() == (whole / name).read_bytes(), (steps, often, name)
        assert not list(student.rglob(".tmp-*"))
        assert not (student / "checkpoints").exists()
    return whole


def training_of(folder: Path) -> Training:
    """The content of a student's training.json."""
    return read_training(folder / "training.json")


def metrics_of(folder: Path) -> list[dict[str, float]]:
    """The metrics of each step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve_of(folder: Path, name: str) -> list[float]:
    """One metric of each step."""
    return [row[name] for row in metrics_of(folder)]
