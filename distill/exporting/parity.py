"""Does an exported model say what the student says, and what does it cost: each figure of an export's table.

Parity is on held-out completions: the prompt goes in at once and the completion after it, so that the cache is in the
comparison. Size, speed and memory are measured in a process of its own for each file (`distill.evaluation.cost`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.evaluation.cost import measure
from distill.exporting.running import Array, Model, open_classifier, open_model, threads
from synthgen.ui import UI, Progress

LEAST = 0.99  # share of positions with the same likeliest token
_STEPS = 24  # tokens that follow each prompt when speed is measured

Pair = tuple[list[int], list[int]]


def agreement(reference: Any, model: Model, pairs: Sequence[Pair], bar: Progress) -> dict[str, Any]:
    """Compare with the student `reference` (transformers, float32) on (prompt, completion) pairs of token ids.

    "agreement": share of completion tokens at which both have the same likeliest token; "max_logprob_difference": the
    largest over the whole vocabulary, in nats; "kl": mean KL(student ‖ exported), nats a token.
    """
    import torch

    same = tokens = 0
    largest = divergence = 0.0
    for prompt, completion in pairs:
        with torch.inference_mode():
            out = reference(torch.tensor([prompt + completion]), logits_to_keep=len(completion) + 1, use_cache=False)
        logp_TV = _logprobs(out.logits[0, :-1].float().numpy())
        model.reset()
        first = model.feed(prompt)[-1:]
        rest = [model.feed(completion[:-1])] if completion[1:] else []
        logq_TV = _logprobs(np.concatenate([first, *rest])[:, : logp_TV.shape[1]])
        same += int((logp_TV.argmax(-1) == logq_TV.argmax(-1)).sum())
        tokens += len(completion)
        largest = max(largest, float(np.abs(logp_TV - logq_TV).max()))
        divergence += float((np.exp(logp_TV) * (logp_TV - logq_TV)).sum())
        bar.advance(1)
    return {
        "tokens": tokens,
        "agreement": same / tokens,
        "max_logprob_difference": largest,
        "kl": divergence / tokens,
    }


def _logprobs(z_TV: Array) -> Array:
    shifted = z_TV.astype(np.float64) - z_TV.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def same_labels(theirs: Array, ours: Array) -> dict[str, Any]:
    """What `agreement` says, of two classifiers' probabilities (texts, labels)."""
    return {
        "agreement": float((theirs.argmax(-1) == ours.argmax(-1)).mean()),
        "max_logprob_difference": float(np.abs(np.log(theirs) - np.log(ours)).max()),
    }


def weigh(table: dict[str, dict[str, Any]], folder: Path, out: Path, job: dict[str, Any], timed: bool, ui: UI) -> None:
    """Put bytes, and if `timed` speed and peak memory, into each row: "student" lies in `folder`, the others in `out`.

    `job` has the "prompts" or "texts" that `timed` takes.
    """
    ui.note(
        "export: speed and memory, each file in a process of its own"
        if timed
        else "export: compared without llama.cpp; for its own words, speed and memory: pip install llama-cpp-python, "
        "then export again with --fresh"
    )
    for name, row in table.items():
        home = folder.resolve() if name == "student" else out
        row["bytes"] = sum(p.stat().st_size for p in home.glob(f"{row['file']}*"))  # weights may lie beside a graph
        if timed:
            path = home if name == "student" else home / row["file"]
            row |= measure({"what": "exported", "runtime": row["runtime"], "path": str(path), **job})


def timed(job: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of a prompt and of each token after it, for a job {"runtime", "path", "prompts": token ids}; of a
    text, for a job with "texts"."""
    if "texts" in job:
        return _timed_classifier(job)
    model = open_model(job["runtime"], Path(job["path"]))
    prompts, steps = [], []
    for number, prompt in enumerate([job["prompts"][0], *job["prompts"]]):
        model.reset()
        began = time.perf_counter()
        token = int(model.feed(prompt)[-1].argmax())
        spent = [time.perf_counter() - began]
        for _ in range(_STEPS):
            began = time.perf_counter()
            token = int(model.feed([token])[-1].argmax())
            spent.append(time.perf_counter() - began)
        if number:  # the first round warms up
            prompts.append(1000 * spent[0])
            steps += [1000 * s for s in spent[1:]]
    return {
        "prompt_tokens": float(np.mean([len(p) for p in job["prompts"]])),
        "prompt_ms": quantiles(prompts),
        "token_ms": quantiles(steps),
        "tokens_per_second": 1000 * len(steps) / sum(steps),
        "threads": threads(),
    }


def _timed_classifier(job: dict[str, Any]) -> dict[str, Any]:
    predict = open_classifier(job["runtime"], Path(job["path"]))
    predict(job["texts"][:8])
    spent = []
    for text in job["texts"]:
        began = time.perf_counter()
        predict([text])
        spent.append(1000 * (time.perf_counter() - began))
    began = time.perf_counter()
    predict(job["texts"])
    return {
        "text_ms": quantiles(spent),
        "texts_per_second": len(job["texts"]) / (time.perf_counter() - began),
        "threads": threads(),
    }


def quantiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile."""
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
