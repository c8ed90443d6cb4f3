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
from synthgen.lm.forward import batches, completion_logits
from synthgen.lm.model import LanguageModel
from synthgen.logits import LogitsMeta
from synthgen.records import Message
from synthgen.ui import UI

# The maximum number of completion tokens whose full distributions are in memory together. With a vocabulary of 50,000,
# the distributions of one model take 200 MB.
_CHUNK_TOKENS = 1024
AS_STUDENT = "teacher, student's prompt"

Prompt = Callable[[HeldOut], Sequence[Message]]


@dataclass(frozen=True)
class Distances:
    """Each field maps the name of a model to an array with one entry for each of R rows. An entry is a sum over the
    row's tokens.

    `kl` is KL(teacher ‖ model) in nats. `agreement` is the number of tokens at which teacher and model have the same
    most likely token. `nll` is −log q of the row's tokens, where q is the model's distribution. `from_targets` is the
    divergence from the stored targets: a KL for a top-k, and a cross-entropy for draws. It is NaN for a row without
    stored targets. `bins` is (R, 15, 3); see `distill.evaluation.slices.calibration_bins`.
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
    targets. A model that is listed under several names is computed only once.
    """
    others = {AS_STUDENT: teacher.weights.model, **models}
    names: dict[int, list[str]] = {}
    for name, model in others.items():
        names.setdefault(id(model), []).append(name)
    distinct = [(some, others[some[0]]) for some in names.values()]
    sums = {name: np.zeros((4, len(rows))) for name in ("teacher", "unigram", *others)}
    bins = {name: np.zeros((len(rows), BINS, 3)) for name in sums}
    meta = taught.meta if taught else None
    targets: dict[str, losses.Target] = {}
    if taught is not None and meta is not None:
        asked_for = {row.id for row in rows}
        numbers = [n for n, e in enumerate(taught.without_targets()) if e.id in asked_for]
        targets = {e.id: target_batch([e.target], meta) for e in taught.rows(numbers)}

    def take(names: Sequence[str], place: int, z_TV: torch.Tensor, logp_TV: torch.Tensor) -> None:
        tokens = list(rows[place].token_ids or ())
        found = _row(z_TV, logp_TV, tokens, targets.get(rows[place].id), meta)
        bins_X3 = calibration_bins(z_TV, torch.tensor(tokens, device=z_TV.device))
        for name in names:
            sums[name][:, place], bins[name][place] = found, bins_X3

    lengths = [len(r.token_ids or ()) for r in rows]
    with ui.progress("evaluate", len(rows), "rows") as bar:
        for chunk in batches(range(len(rows)), lengths, len(rows), _CHUNK_TOKENS):
            completions = [list(rows[place].token_ids or ()) for place in chunk]
            teacher_rows = teacher.logprobs([list(rows[place].prompt_token_ids or ()) for place in chunk], completions)
            asked = [teacher.tokens.render(prompt(rows[place])) for place in chunk]
            for some, model in distinct:
                logits = completion_logits(model, asked, completions)
                for place, z_TV, logp_TV in zip(chunk, logits, teacher_rows, strict=True):
                    take(some, place, z_TV, logp_TV)
            for place, logp_TV in zip(chunk, teacher_rows, strict=True):
                take(["teacher"], place, logp_TV, logp_TV)
                take(["unigram"], place, unigram_V.to(logp_TV.device).expand_as(logp_TV), logp_TV)
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
    far = float("nan")
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


def same_model(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    """Whether two models compute the same function: equal classes, configs, modes and devices, and equal values in all
    tensors.

    The name under which a model was loaded is not compared. The result can be False although the models compute the
    same function.
    """
    if type(one) is not type(other) or one.training != other.training or one.device != other.device:
        return False
    configs = [{k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"} for model in (one, other)]
    first, second = one.state_dict(), other.state_dict()
    return (
        configs[0] == configs[1]
        and first.keys() == second.keys()
        and all(t.dtype == second[name].dtype and torch.equal(t, second[name]) for name, t in first.items())
    )
