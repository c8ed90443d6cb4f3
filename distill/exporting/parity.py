"""Does an exported model say what the student says, and what does it cost: the figures of an export's table.

The comparison is on held-out completions: the prompt goes in at once and the completion after it, so that the cache is
compared too. Size, speed and memory are measured in a process of its own for each file (`distill.cost`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.cost import measure, row_of
from distill.exporting.job import Job
from distill.exporting.running import Array, Model
from synthgen.results.export import ExportedFile, Gate
from synthgen.results.measures import Measure, Row, Table
from synthgen.ui import Progress

LEAST = 0.99  # share of positions with the same most likely token

Pair = tuple[list[int], list[int]]

_BYTES = Measure("size, MB", "megabytes", True, "cost")
_DIFFERENCE = Measure("largest |Δ log p|", "significant", True)
_PEAK = Measure("peak memory, MB", "megabytes", True, "cost")

TOKEN_MEASURES = {
    "bytes": _BYTES,
    "agreement": Measure("same most likely token", "fine_percent", False),
    "max_logprob_difference": _DIFFERENCE,
    "kl": Measure("KL from the student, nats a token", "significant", True, "detail"),
    "token_ms": Measure("one token, ms", "milliseconds", True, "cost"),
    "prompt_ms": Measure("one prompt, ms", "milliseconds", True, "cost"),
    "tokens_per_second": Measure("tokens a second", "rate", False, "cost"),
    "peak_rss_bytes": _PEAK,
}
LABEL_MEASURES = {
    "bytes": _BYTES,
    "agreement": Measure("same most likely label", "fine_percent", False),
    "max_logprob_difference": _DIFFERENCE,
    "text_ms": Measure("one text, ms", "milliseconds", True, "cost"),
    "texts_per_second": Measure("texts a second, all at once", "rate", False, "cost"),
    "peak_rss_bytes": _PEAK,
}
NOTES = [
    "Speed and memory of each file were measured in a separate process. Times are medians with 95th percentiles.",
]


def gate(choice: str) -> Gate:
    """What every file must reach; `choice` is what is chosen at a position: a token or a label."""
    return Gate("agreement", LEAST, f"held-out positions with the student's most likely {choice}")


def agreement(reference: Any, model: Model, pairs: Sequence[Pair], bar: Progress) -> Row:
    """Compare `model` with the student `reference` (transformers, float32) on (prompt, completion) pairs of token ids.

    `agreement`: share of completion tokens at which both have the same most likely token. `max_logprob_difference`: the
    largest over the whole vocabulary, in nats. `kl`: mean KL(student ‖ exported) in nats a token.
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


def same_labels(expected: Array, found: Array) -> Row:
    """What `agreement` says, for the probabilities (texts, labels) of the student and of its export."""
    return {
        "agreement": float((expected.argmax(-1) == found.argmax(-1)).mean()),
        "max_logprob_difference": float(np.abs(np.log(expected) - np.log(found)).max()),
    }


def weigh(
    table: Table, files: Mapping[str, ExportedFile], job: Job, inputs: Mapping[str, Any], timed: str | None
) -> None:
    """Put the size of each file into its row of `table` and, with `timed`, its speed and peak memory.

    The row "student" lies in the student's folder, the others in that of the job. `timed` names the function that
    times a file, and `inputs` has its "prompts" or "texts"; without it nothing here can run the files.
    """
    job.ui.note(
        "export: speed and memory, each file in a separate process"
        if timed
        else "export: llama.cpp is not installed, so it did not run the files; to measure its results, speed and "
        "memory: pip install llama-cpp-python, then export again with --fresh"
    )
    for name, file in files.items():
        home = job.student.resolve() if name == "student" else job.out
        row = table[name]
        row["bytes"] = sum(p.stat().st_size for p in home.glob(f"{file.file}*"))  # weights may lie beside a graph
        if timed:
            place = home if name == "student" else home / file.file
            row |= row_of(measure(timed, {"runtime": file.runtime, "path": str(place), **inputs}))
