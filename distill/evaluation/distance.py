"""Measures how far models are from their live teacher over the whole vocabulary, and stores one sum for each held-out
row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from distill import losses
from distill.data import target_batch
from distill.evaluation.slices import BINS, calibration_bins
from distill.held_out import HeldOut, training_tokens
from distill.intervals import Array
from distill.streaming.stream import Stream
from synthgen.lm.forward import completion_logits
from synthgen.lm.model import LanguageModel
from synthgen.logits import LogitsMeta
from synthgen.records import Message
from synthgen.ui import UI

_CHUNK = 16  # number of rows whose full distributions are in memory together
AS_STUDENT = "teacher, student's prompt"

Prompt = Callable[[HeldOut], Sequence[Message]]


@dataclass(frozen=True)
class Distances:
    """Each field maps the name of a model to an array with one entry for each of R rows. An entry is a sum over the
    row's tokens.

    `kl` is KL(teacher ‖ model) in nats. `agreement` is the number of tokens at which teacher and model have the same
    most likely token. `nll` is −log q of the row's tokens, where q is the model's distribution. `from_targets` is the
    divergence from the stored targets: a KL for a top-k, and a cross-entropy for draws. `bins` is (R, 15, 3); see
    `distill.evaluation.slices.calibration_bins`.
    """

    kl: dict[str, Array]
    agreement: dict[str, Array]
    nll: dict[str, Array]
    from_targets: dict[str, Array]
    bins: dict[str, Array]


def unigram(source: Path, vocab_size: int) -> torch.Tensor:
    """Return the log-frequencies (V,) of the tokens in the training completions, with 1 added to each count."""
    counts = np.ones(vocab_size)
    for tokens in training_tokens(source):
        counts += np.bincount(tokens, minlength=vocab_size)
    return torch.from_numpy(np.log(counts / counts.sum())).float()


@torch.inference_mode()
def distances(
    teacher: LanguageModel,
    models: Mapping[str, PreTrainedModel],
    unigram_V: torch.Tensor,
    rows: Sequence[HeldOut],
    *,
    ui: UI,
    taught: Stream | None = None,
    prompt: Prompt = lambda row: row.prompt,
) -> Distances:
    """Compare `models` with `teacher` on each row.

    The teacher reads the row's `prompt_token_ids`. The students read the prompt that `prompt` returns for the row. The
    teacher that reads the student's prompt is also compared, under the name "teacher, student's prompt". `taught` holds
    the stored targets of these rows. If `taught` is given, the result also has the divergence of each model from these
    targets.
    """
    others = {AS_STUDENT: teacher.weights.model, **models}
    sums = {name: np.zeros((4, len(rows))) for name in ("teacher", "unigram", *others)}
    bins = {name: np.zeros((len(rows), BINS, 3)) for name in sums}
    meta = taught.meta if taught else None
    targets: dict[str, losses.Target] = {}
    if taught is not None and meta is not None:
        asked_for = {row.id for row in rows}
        numbers = [n for n, e in enumerate(taught.without_targets()) if e.id in asked_for]
        targets = {e.id: target_batch([e.target], meta) for e in taught.rows(numbers)}

    def take(name: str, place: int, z_TV: torch.Tensor, logp_TV: torch.Tensor) -> None:
        tokens = list(rows[place].token_ids or ())
        sums[name][:, place] = _row(z_TV, logp_TV, tokens, targets.get(rows[place].id), meta)
        bins[name][place] = calibration_bins(z_TV, torch.tensor(tokens, device=z_TV.device))

    with ui.progress("evaluate", len(rows), "rows") as bar:
        for begin in range(0, len(rows), _CHUNK):
            chunk = rows[begin : begin + _CHUNK]
            completions = [list(r.token_ids or ()) for r in chunk]
            teacher_rows = teacher.logprobs([list(r.prompt_token_ids or ()) for r in chunk], completions)
            asked = [teacher.tokens.render(prompt(r)) for r in chunk]
            for name, model in others.items():
                for row, z_TV in enumerate(completion_logits(model, asked, completions)):
                    take(name, begin + row, z_TV, teacher_rows[row])
            for row, logp_TV in enumerate(teacher_rows):
                take("teacher", begin + row, logp_TV, logp_TV)
                take("unigram", begin + row, unigram_V.to(logp_TV.device).expand_as(logp_TV), logp_TV)
            bar.advance(len(chunk))
    kl, agreement, nll, far = ({name: s[i] for name, s in sums.items()} for i in range(4))
    return Distances(kl, agreement, nll, far if taught else {}, bins)


def _row(
    z_TV: torch.Tensor,
    logp_TV: torch.Tensor,
    tokens: list[int],
    target: losses.Target | None,
    meta: LogitsMeta | None,
) -> list[float]:
    labels = torch.tensor(tokens, device=z_TV.device)
    far = 0.0
    if target is not None and meta is not None:
        t, size = meta["temperature"], min(meta["vocab_size"], z_TV.shape[-1])
        target = losses.moved(target, z_TV.device)
        far = float(losses.divergence(z_TV, target, temperature=t, vocabulary=size).double().sum()) / t**2
    return [
        float(losses.kl_full(z_TV, logp_TV).double().sum()),
        float((z_TV.argmax(-1) == logp_TV.argmax(-1)).sum()),
        float(losses.cross_entropy(z_TV, labels).double().sum()),
        far,
    ]
