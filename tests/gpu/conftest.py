"""The device under test, and small runs whose teacher is on it.

SYNTHGEN_TEST_DEVICE names the device. The default is 'cuda'.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from support.small import small_task, small_teacher

DEVICE = os.environ.get("SYNTHGEN_TEST_DEVICE", "cuda")
NO_GPU = "torch finds no GPU; SYNTHGEN_TEST_DEVICE=cpu runs these tests on the CPU"


def pytest_terminal_summary(terminalreporter):
    """Prints once why all tests were skipped."""
    if any(NO_GPU in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(f"tests/gpu skipped: {NO_GPU}")


@pytest.fixture(scope="session", autouse=True)
def device() -> torch.device:
    """The device on which the code under test computes. The expected values are computed on the CPU."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    return torch.device(DEVICE)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory) -> Path:
    """The folder of a small Llama with byte tokens."""
    return small_teacher(tmp_path_factory.mktemp("gpu-teacher") / "teacher")


@pytest.fixture(scope="session")
def make_run(tmp_path_factory, teacher_folder):
    """A function that generates and curates on the device, and returns (recipe, run). Calls with the same name return
    the same run.

    `make_run(name, device="cpu")` returns the same run, and a recipe whose teacher is on the CPU.
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
        teacher = recipe.teacher.model_copy(update={"device": device})
        return recipe.model_copy(update={"teacher": teacher}), folder / name

    return make
