"""Compares exported files with the student, and measures their size, speed and memory.

The comparison uses held-out completions. The prompt is fed first, and the completion in a second call, so that the
comparison includes the key-value cache. Speed and memory of each file are measured in a separate process
(`distill.cost`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.cost import measure, row_of
from distill.exporting.job import Job
from distill.exporting.running import Array, Model
from synthgen.errors import CorpusError, UserError
from synthgen.results.export import ExportedFile, Gate
from synthgen.results.measures import Measure, Row, Table
from synthgen.ui import Progress

LEAST = 0.99  # minimum share of positions at which export and student have the same most likely token or label

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
    """The condition that every file must meet. `choice` is "token" or "label": what the model chooses at a position."""
    return Gate("agreement", LEAST, f"held-out positions with the student's most likely {choice}")


def agreement(reference: Any, model: Model, pairs: Sequence[Pair], bar: Progress) -> Row:
    """Compare `model` with the student `reference` (transformers, float32) on (prompt, completion) pairs of token ids.

    In the result, `agreement` is the share of completion tokens at which both models have the same most likely token.
    `max_logprob_difference` is the largest difference of log-probabilities over the whole vocabulary, in nats. `kl` is
    the mean KL(student ‖ exported) in nats a token.

    Raises CorpusError when the student's logits are not finite numbers, and UserError when the logits of `model` are
    not.
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
        _check_finite(logp_TV, logq_TV)
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


def _check_finite(student: Array, exported: Array) -> None:
    """Raise CorpusError or UserError for results that are not finite numbers. If all results were NaN, NumPy would
    always choose the same token or label as the most likely.
    """
    if not np.isfinite(student).all():
        raise CorpusError(
            "the student's results are not finite numbers, so its weights are damaged",
            "make the student again: `distill train RUN --fresh`",
        )
    if not np.isfinite(exported).all():
        raise UserError("the exported model's results are not finite numbers", "export the student in another format")


def _logprobs(z_TV: Array) -> Array:
    shifted = z_TV.astype(np.float64) - z_TV.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def same_labels(expected: Array, found: Array) -> Row:
    """Compare the label probabilities (texts, labels) of the student and its export.

    The result has the measures that the function `agreement` returns, except `tokens` and `kl`. Raises the same errors
    as `agreement`.
    """
    _check_finite(expected, found)
    return {
        "agreement": float((expected.argmax(-1) == found.argmax(-1)).mean()),
        "max_logprob_difference": float(np.abs(np.log(expected) - np.log(found)).max()),
    }


def weigh(
    table: Table, files: Mapping[str, ExportedFile], job: Job, inputs: Mapping[str, Any], timed: str | None
) -> None:
    """Write the size, speed and peak memory of each file into its row of `table`.

    The file of the row "student" is in the student's folder, and the other files are in the folder `job.out`. `timed`
    names the function that times a file, and `inputs` holds an argument of this function under the key "prompts" or
    "texts". When `timed` is None, no installed runtime can run the files, and only the size is written.
    """
    job.ui.note(
        "export: speed and memory, each file in a separate process"
        if timed
        else "export: llama.cpp is not installed, so results, speed and memory in llama.cpp are not measured; "
        "to measure them, pip install llama-cpp-python and export again with --fresh"
    )
    for name, file in files.items():
        home = job.student.resolve() if name == "student" else job.out
        row = table[name]
        row["bytes"] = sum(p.stat().st_size for p in home.glob(f"{file.file}*"))  # also counts PATH.data, if it exists
        if timed:
            place = home if name == "student" else home / file.file
            row |= row_of(measure(timed, {"runtime": file.runtime, "path": str(place), **inputs}))
