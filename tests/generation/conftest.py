"""Fixtures for generation: scripted jobs, and shipped recipes with tiny teachers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from support.scripted import jobs_of, write

from synthgen.recipe import load_recipe, shipped
from synthgen.tables.engines import ENGINES


@pytest.fixture
def jobs(tmp_path):
    """A function that takes a number of seeds and sections of a recipe, and returns all jobs. `templates` adds template
    files.
    """

    def make(count: int = 6, templates: dict[str, str] | None = None, **sections) -> list:
        return jobs_of(write(tmp_path / "task", count, templates, **sections))

    return make


_OPENED = {}


def opened(section, options):
    """The teacher of a `teacher` section. The teacher is loaded at the first call for its section and options."""
    from synthgen.teachers.local import open_local

    key = (section, repr(options))
    if key not in _OPENED:
        _OPENED[key] = open_local(section, options)
    return _OPENED[key]


@pytest.fixture(scope="session")
def talker(tmp_path_factory, tiny):
    """Folders of two tiny models that sometimes end a turn. A model with random weights almost never ends a turn."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders = []
    for seed in range(2):
        folder = tmp_path_factory.mktemp("talkers") / f"talker{seed}"
        model = AutoModelForCausalLM.from_pretrained(tiny)
        tokenizer = AutoTokenizer.from_pretrained(tiny)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter += seed * 0.1 * torch.randn(parameter.shape, generator=generator)
            model.get_input_embeddings().weight[tokenizer.eos_token_id] *= 10
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture
def shrunk(talker, tmp_path, monkeypatch):
    """A function that returns a shipped recipe with tiny teachers, few seeds and small shards. Each model is loaded
    once.
    """
    monkeypatch.setitem(ENGINES, "transformers", replace(ENGINES["transformers"], opens=opened))

    def make(name: str, limit: int = 10, **update):
        path = shipped("prompts") / name
        values = yaml.safe_load((path / "recipe.yaml").read_text())
        section = {"license": "Apache-2.0", "batch_size": 8, "device": "cpu"}
        if "teachers" in values:
            values["teachers"] = {n: {**section, "model": m} for n, m in zip(("a", "b"), talker, strict=True)}
        else:
            values["teacher"] = {**section, "model": talker[0]}
        for seeds in values["seeds"]:
            seeds["path"] = str((path / seeds["path"]).resolve())
            seeds["limit"] = limit
        values["prompts"] = str((path / values.get("prompts", ".")).resolve())
        values["generate"] |= {"max_new_tokens": 8, "shard_size": 4}
        values["steps"] = {**values.get("steps", {}), "max_new_tokens": 24}
        values |= {"split": {"test": 0.3}, "train": None, "logits": {"kind": "topk", "k": 8}}
        for key, value in update.items():
            values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
        written = tmp_path / f"{name}.yaml"
        written.write_text(yaml.safe_dump(values, sort_keys=False))
        return load_recipe(written)

    return make
