"""Measures how many bytes the stored distributions of one token take on disk, for completions of the demo's teacher.

    python benchmarks/logits_size.py [--rows 96] [--tokens 48]

With the package's own code, the benchmark writes shards (Parquet, zstd) of top-k with k = 20, 64 and 128, and of 50
draws. For comparison it writes the same top-k as flat lists of int32 and float16, as nested dictionaries and as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import corpus, durable, logits
from synthgen.prompts import load_prompt
from synthgen.recipe import load_recipe
from synthgen.requests import Request
from synthgen.seeds import load_seeds
from synthgen.teachers.transformers import LocalModel


def completions(spec: logits.LogitsSpec) -> list:
    """Replies of the demo's teacher to the first seeds of the task `reasoning`, with the distributions that `spec`
    describes.
    """
    prompt = load_prompt(RECIPE.prompts, RECIPE.task)
    seeds = load_seeds(RECIPE.seeds, RECIPE.split, prompt.question)[:ROWS]
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": TOKENS}
    requests = [Request("sample", prompt.teacher(s.fields), sampling, id=f"{n:032x}") for n, s in enumerate(seeds)]
    return TEACHER.sample(requests, spec)


def distillkit(k: int) -> int:
    """Bytes per token of DistillKit's compressed logits for a vocabulary of up to 65,536."""
    return 2 * k + 2 * 16 + 4 * 6


def on_disk(table: pa.Table, **options: object) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(table, path, compression="zstd", **options)
        return path.stat().st_size


def shard_size(spec: logits.LogitsSpec, replies: list) -> tuple[int, float]:
    """Returns (bytes on disk, tokens a second) of a shard that `corpus.commit` writes and `logits.read` reads back."""
    meta = logits.meta(spec, TEACHER.identity["vocab_size"], "teacher", "tokenizer")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        durable.write_json(folder / "inputs.json", {})
        began = time.perf_counter()
        table = logits.to_table(
            [str(n) for n in range(len(replies))],
            [logits.align(r.token_ids, "teacher", "tokenizer", 1.0) for r in replies],
            [r.target for r in replies],
            meta,
        )
        corpus.commit(folder, "train-00000", {"logits/teacher": table})
        path = folder / "logits" / "teacher" / "train-00000.parquet"
        shard = logits.read(path)
        for row in range(len(shard)):
            shard.target(row)
        tokens = sum(len(r.token_ids) for r in replies)
        return path.stat().st_size, tokens / (time.perf_counter() - began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=96, help="number of completions")
    parser.add_argument("--tokens", type=int, default=48, help="maximum number of tokens of a completion")
    options = parser.parse_args()
    ROWS, TOKENS = options.rows, options.tokens
    RECIPE = load_recipe("reasoning")
    TEACHER = LocalModel.open(RECIPE.teacher)
    out = sys.stdout
    out.write(
        f"{TEACHER.identity['model']}, V = {TEACHER.identity['vocab_size']:,}, {ROWS} completions at temperature 1\n\n"
    )
    out.write(
        "| kept | synthgen, B/token | DistillKit | flat int32 + float16 | nested | JSON | write + read, tokens/s |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    wide = completions(logits.LogitsSpec("topk", k=128))
    tokens = sum(len(r.token_ids) for r in wide)
    for k in (20, 64, 128):
        cut = [
            type(r)(
                token_ids=r.token_ids,
                target=logits.TopK(r.target.ids[:, :k], r.target.logprobs[:, :k], r.target.log_tail, r.target.log_z),
            )
            for r in wide
        ]
        size, speed = shard_size(logits.LogitsSpec("topk", k=k), cut)
        ids = np.concatenate([r.target.ids for r in cut])
        logp = np.concatenate([r.target.logprobs for r in cut])
        flat = pa.table(
            {
                "ids": pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), k),
                "logprobs": pa.FixedSizeListArray.from_arrays(pa.array(logp.astype(np.float16).ravel()), k),
            }
        )
        rows = [
            [{"token": str(i), "logprob": float(v)} for i, v in zip(a, b, strict=True)]
            for a, b in zip(ids.tolist(), logp.tolist(), strict=True)
        ]
        nested = pa.table({"top": pa.array(rows)})
        out.write(
            f"| top-{k} | {size / tokens:.1f} | {distillkit(k)} | {on_disk(flat, use_dictionary=False) / tokens:.1f} | "
            f"{on_disk(nested) / tokens:.1f} | {len(json.dumps(rows)) / tokens:.0f} | {speed:,.0f} |\n"
        )
    drawn = completions(logits.LogitsSpec("sampled", draws=50))
    size, speed = shard_size(logits.LogitsSpec("sampled", draws=50), drawn)
    tokens = sum(len(r.token_ids) for r in drawn)
    unique = np.concatenate([r.target.uniques for r in drawn]).mean()
    out.write(f"| 50 draws ({unique:.1f} unique) | {size / tokens:.1f} | – | – | – | – | {speed:,.0f} |\n")
    out.write(
        f"\nStored log-probabilities above {logits.FLOOR:.0f} are off by at most {logits.STORAGE_ERROR:.2e} nats. "
        "Draws are exact.\nThe bytes of DistillKit are computed from its published layout: 16 bits an id, 16 "
        "log-probabilities in bfloat16, and a polynomial of six terms for the others: ceil(k · 16 bit / 8) + 32 + 24.\n"
    )
