"""Functions that all experiments use: they make small Llama models, train them with the package's loop, and write
result files.

    run("logits", ARMS, lambda arm, seed: {"items": {...}, ...})

Each arm writes one file for each seed, `results/<name>/<arm>-<seed>.json`. If the file exists, the arm is not run for
this seed. For each measure, a file holds one number for each held-out item (a text or a problem). tables.py reads the
files.

Each experiment has the option `--tiny`: a quick run with small sizes and one seed, which only shows that the experiment
works. All files of a quick run are in a temporary folder.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distill.loop import Checkpoints, Objective, accelerator_of, fit
from synthgen import durable
from synthgen.lm.tokens import Tokens
from synthgen.recipe import TrainSection
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI, Progress

HERE = Path(__file__).parent
TINY = "--tiny" in sys.argv[1:]
SCRATCH = tempfile.TemporaryDirectory() if TINY else None  # deleted when the program ends
RESULTS = Path(SCRATCH.name) / "results" if SCRATCH else HERE / "results"
CACHE = Path(SCRATCH.name) / "runs" if SCRATCH else HERE.parent.parent / "runs" / "experiments"

torch.set_num_threads(1)


def sized(full: int, tiny: int) -> int:
    """A size of an experiment: `full`, or `tiny` in a quick run."""
    return tiny if TINY else full


SEEDS = range(sized(3, 1))


def llama(vocabulary: int, width: int, layers: int, heads: int, seed: int, eos: int, context: int = 64) -> Any:
    """A Llama with random weights and tied embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def as_teacher(model: Any, tokenizer: Any, batch_size: int = 128) -> LocalModel:
    """The model as an object of the class that the package uses for local teachers."""
    tokens = Tokens.of(tokenizer, model.generation_config)
    return LocalModel.of(model.eval().requires_grad_(False), tokens, batch_size)


def parameters(model: Any) -> int:
    """The number of weights."""
    return sum(p.numel() for p in model.parameters())


def section_of(steps: int, batch_size: int, seed: int, **keys: Any) -> TrainSection:
    """The section `train` of a recipe: the experiments' settings, replaced or extended by `keys`."""
    values = {"learning_rate": 2e-3, "kd_weight": 1.0, "save_steps": 1 << 20, "baseline": False, **keys}
    return TrainSection.model_validate({"max_steps": steps, "batch_size": batch_size, "seed": seed, **values})


def train(objective: Objective, batch_of: Callable[[int], list[Any]], section: TrainSection) -> dict[str, Any]:
    """Trains with the package's loop. Returns the steps, tokens and seconds, and the mean metrics of the last 5% of
    steps.
    """
    steps = section.max_steps or 0
    with tempfile.TemporaryDirectory() as folder:
        accelerator = accelerator_of(section, torch.device("cpu"), Path(folder))
        wall, cpu = time.perf_counter(), time.process_time()
        metrics = fit(
            objective,
            batch_of,
            section,
            steps,
            Checkpoints(Path(folder), "arm"),
            Progress("train", steps, "steps"),
            accelerator=accelerator,
        )
        spent = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
        accelerator.free_memory()
    last = metrics[-max(1, steps // 20) :]
    means = {key: round(sum(m.get(key, 0.0) for m in last) / len(last), 4) for key in last[-1] if key != "step"}
    return {"steps": steps, "tokens": int(sum(m["tokens"] for m in metrics)), **spent, "last": means}


def run(
    name: str, arms: Sequence[str], act: Callable[[str, int], dict[str, Any]], seeds: Sequence[int] = SEEDS
) -> None:
    """Calls `act` for each pair of an arm and a seed that has no result file yet, and writes the result file."""
    ui = UI()
    for seed in seeds:
        for arm in arms:
            path = RESULTS / name / f"{arm}-{seed}.json"
            if path.exists():
                continue
            began = time.perf_counter()
            result = act(arm, seed)
            result["items"] = {key: [round(float(v), 4) for v in values] for key, values in result["items"].items()}
            versions = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
            text = json.dumps({"experiment": name, "arm": arm, "seed": seed, **result, "made_with": versions})
            durable.write_text(path, text + "\n")
            means = {key: round(sum(v) / len(v), 4) for key, v in result["items"].items() if v}
            ui.note(f"{name} {arm} seed {seed}: {means} in {time.perf_counter() - began:.0f} s")


def cached(name: str, make: Callable[[], Any]) -> Any:
    """Loads a model from `CACHE`. If `CACHE` does not have the model, it is made with `make` and saved there."""
    folder = CACHE / name
    if not (folder / "config.json").exists():
        temporary = folder.with_name(f"{durable.TEMPORARY}{name}")
        make().save_pretrained(temporary)
        temporary.rename(folder)
    return LlamaForCausalLM.from_pretrained(folder, trust_remote_code=False).eval()


def read(name: str, arm: str, seed: int) -> dict[str, Any]:
    """The content of the result file for one arm and one seed of the experiment `name`."""
    return dict(json.loads((RESULTS / name / f"{arm}-{seed}.json").read_text()))
