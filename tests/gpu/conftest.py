"""The device that these tests are about: SYNTHGEN_TEST_DEVICE, or 'cuda'; and small runs whose teacher is there."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from support.small import small_task, small_teacher

DEVICE = os.environ.get("SYNTHGEN_TEST_DEVICE", "cuda")
WITHOUT = "torch sees no GPU; SYNTHGEN_TEST_DEVICE=cpu runs these tests on the CPU"


def pytest_terminal_summary(terminalreporter):
    """Say once why nothing ran."""
    if any(WITHOUT in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(f"tests/gpu skipped: {WITHOUT}")


@pytest.fixture(scope="session", autouse=True)
def device() -> torch.device:
    """Where the code under test computes; what it is compared with is computed on the CPU."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip(WITHOUT)
    return torch.device(DEVICE)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory) -> Path:
    """The weights of a small Llama with byte tokens."""
    return small_teacher(tmp_path_factory.mktemp("gpu-teacher") / "teacher")


@pytest.fixture(scope="session")
def made(tmp_path_factory, teacher_folder):
    """A function that generates and curates on the device: (recipe, run); the same name is the same run.

    `made(name, device="cpu")` gives the recipe of the same run with its teacher on another device.
    """
    import synthgen

    folder, done = tmp_path_factory.mktemp("gpu-runs"), {}

    def make(name: str, device: str = DEVICE, **sections):
        if name not in done:
            teacher = {"model": str(teacher_folder), "license": "Apache-2.0", "batch_size": 64, "device": DEVICE}
            task = small_task(folder / f"task-{name}", teacher_folder, **{"teacher": teacher, **sections})
            recipe = synthgen.load_recipe(task)
            synthgen.generate(recipe, folder / name)
            synthgen.curate(recipe, folder / name)
            done[name] = recipe
        recipe = done[name]
        there = recipe.teacher.model_copy(update={"device": device})
        return recipe.model_copy(update={"teacher": there}), folder / name

    return make
