"""The data that a student learns from: the rows, the recipe's choice of rows, and batches of stored distributions.

Rows come from `distill.streaming`, which reads a row by its index. From a kept row, the student learns the tokens (by
cross-entropy) and the stored distributions. From a rejected row, the student learns nothing, or only the distributions,
or both tokens and distributions. The reasons for which the row was rejected decide what the student learns from it.
Logits are matched to rows by id and alignment hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from distill import losses
from synthgen import corpus, logits
from synthgen.errors import CorpusError, UserError
from synthgen.logits import LogitsMeta
from synthgen.recipe import TrainSection
from synthgen.records import Message, Record

Row = TypeVar("Row")

Render = Callable[[Sequence[Message]], list[int]]
"""Renders the messages of a prompt to token ids."""

NO_ROWS = "has no rows to train on"

REASONS = {
    "too_long": "longer than train.max_length",
    "degenerate": "degenerate",
    "rejected_side": "of a pair's rejected side",
    "nothing_to_learn": "with no tokens to learn",
    "no_room_to_write": "with no room for max_new_tokens",
    "not_scored": "not scored by the other teacher",
    "texts_differ": "with another text than the other teacher scored",
}
"""For each key of `TrainingSet.left_out`, the reason in words. In a message, this text follows the number of rows."""


@dataclass(frozen=True)
class Part:
    """A part of a completion that a teacher with another tokenizer splits differently; see `distill.targets.across`.

    The part is at the student's positions [begin, end). `kept` (k,) holds the teacher's k largest probabilities for the
    whole part, largest first. `others` is the number of ids that are not among these k ids, and each of these further
    ids has the probability `share`.
    """

    begin: int
    end: int
    kept: logits.Floats
    share: float
    others: int


@dataclass(frozen=True)
class Example:
    """One training row.

    `prompt` and `completion` are token ids of the student's tokenizer. `target` has a distribution for each completion
    token; None when the student learns from the tokens alone. `kept` says whether the loss of this row includes the
    cross-entropy of the tokens. `teacher_prompt` is the prompt that was sent to the teacher, in the teacher's tokens;
    empty when it is unknown. `task` names the task of this example, and `also` has the examples of the row's other
    tasks; see `distill.targets.rationale`. For `parts`, see `Part`. `masked` (T,) is true for completion tokens that
    add nothing to the loss. None means that no token is masked. See `distill.targets.masking`.
    """

    id: str
    prompt: list[int]
    completion: list[int]
    target: logits.Target | None
    kept: bool
    teacher_prompt: Sequence[int] = ()
    task: str = ""
    also: tuple[Example, ...] = ()
    parts: Sequence[Part] = ()
    masked: logits.Bools | None = None

    @property
    def learned(self) -> int:
        """The number of completion tokens that are not masked."""
        return len(self.completion) - (0 if self.masked is None else int(self.masked.sum()))


class Answered(Protocol):
    """The attributes of a row that a `Shape` (a function that changes training rows) reads."""

    @property
    def prompt(self) -> Sequence[Message]: ...

    @property
    def completion(self) -> Sequence[Message]: ...

    @property
    def answer(self) -> str | None: ...


Shape = Callable[[Answered, Example], Example | None]
"""Changes an example before training, for example by removing its rationale. Returns None to leave the row out."""

Merge = Callable[[Sequence[logits.Target], Sequence[LogitsMeta]], tuple[logits.Target, LogitsMeta]]
"""Merges the targets of several teachers into one target with its metadata."""

Mask = Callable[[Sequence[logits.Target], Sequence[LogitsMeta]], logits.Bools]
"""Decides which tokens of a row are masked, from the targets of several teachers."""


@dataclass(frozen=True)
class TrainingSet:
    """The rows of one split, in memory.

    `meta` is the metadata of the rows' distributions; None when the rows have no distributions. `left_out` counts the
    rows that were left out, by reason: `too_long`, `degenerate`, `nothing_to_learn`, ….
    """

    examples: list[Example]
    meta: LogitsMeta | None
    left_out: dict[str, int]


@dataclass(frozen=True)
class Choice:
    """Which rows and distributions of a corpus are used.

    A row is left out when prompt and completion together have more than `max_length` tokens. A row is also left out
    when the student's or the teacher's prompt has more than `max_prompt` tokens. `share` is the share of the training
    seeds whose rows are used. Seeds are chosen by a hash, so the seeds of a smaller share are a subset of those of a
    larger share.

    With `labels_alone`, only kept rows are used, without distributions. When `targets` is false, all rows are used
    without stored distributions, because a live teacher computes them. Otherwise the stored distributions of `teachers`
    are read. Without `teachers`, there must be distributions of exactly one teacher. `merge` merges the distributions
    of several teachers into one. `mask` decides from these distributions which tokens add nothing to the loss.
    """

    max_length: int
    split: str = "train"
    share: float = 1.0
    labels_alone: bool = False
    max_prompt: int | None = None
    targets: bool = True
    teachers: tuple[str, ...] = ()
    merge: Merge | None = None
    mask: Mask | None = None


def rows(folder: Path, split: str, share: float = 1.0) -> list[tuple[Record, bool]]:
    """For each row of one split of a curated corpus, return (record, whether the loss includes the cross-entropy of the
    tokens).

    The rows are ordered by shard and id. Rows from which nothing may be learned are left out. For `share`, see
    `Choice`.
    """
    taught = [
        (name, record, part == "data" or all(reason["teaches"] == "all" for reason in record.verdicts))
        for part in ("data", "rejected")
        for name, records in corpus.records(folder, part, split)
        for record in records
        if not _teaches_nothing(record) and (split != "train" or _place(record.seed_id) < share)
    ]
    return [(record, kept) for _, record, kept in sorted(taught, key=lambda row: (row[0], row[1].id))]


def _teaches_nothing(record: Record) -> bool:
    """Whether the row is the rejected side of a pair, or was rejected for a reason that forbids learning from it."""
    return record.pair_role == "rejected" or any(reason["teaches"] == "nothing" for reason in record.verdicts)


def _place(seed_id: str) -> float:
    """A number in [0, 1) that depends only on the seed's id."""
    return int.from_bytes(hashlib.blake2b(seed_id.encode(), digest_size=8).digest()) / 2**64


def validation_rows(section: TrainSection, folder: Path, read: Callable[[], Sequence[Row]]) -> Sequence[Row]:
    """Return the validation rows that `read` returns, or no rows when the recipe measures no validation loss.

    Raises UserError when the corpus has no validation rows.
    """
    if not section.eval_steps:
        return ()
    try:
        examples = read()
    except CorpusError as error:
        if NO_ROWS not in str(error):
            raise
        examples = ()
    if not examples:
        raise UserError(
            f"train.eval_steps is set, and {folder} has no validation rows", "set split.validation in the recipe"
        )
    return examples


def in_words(left_out: dict[str, int]) -> str:
    """Say in words how many rows were left out, and why."""
    return ", ".join(f"{count:,} {REASONS[name]}" for name, count in left_out.items() if count)


def target_batch(targets: Sequence[logits.Target | None], meta: LogitsMeta) -> losses.Target:
    """Concatenate the targets of all rows for the loss. `meta` is the metadata of the shards.

    Raises ValueError when a target is not of the kind that `meta` states.
    """
    if meta["kind"] == "sampled":
        draws = [target for target in targets if isinstance(target, logits.Sampled)]
        _check_kind(len(draws) == len(targets), meta)
        return losses.Sampled(*sampled_batch(draws, meta["draws"]))
    kept = [target for target in targets if isinstance(target, logits.TopK)]
    _check_kind(len(kept) == len(targets), meta)
    parts = topk_batch(kept)
    return losses.TopK(*parts, int(parts[0].max()) if parts[0].numel() else 0)


def _check_kind(right: bool, meta: LogitsMeta) -> None:
    if not right:
        raise ValueError(f"the shards state targets of kind '{meta['kind']}', but the targets are of another kind")


def sampled_batch(targets: Sequence[logits.Sampled], draws: int) -> tuple[Tensor, Tensor]:
    """Return ids and weights (N, U) for the N positions of all rows. U is the largest number of different ids that were
    drawn at a position; positions with fewer ids are padded with weight 0.
    """
    uniques = np.concatenate([t.uniques for t in targets]).astype(np.int64)
    place = np.arange(uniques.max())[None, :] < uniques[:, None]
    ids, weights = np.zeros(place.shape, np.int64), np.zeros(place.shape, np.float32)
    ids[place] = np.concatenate([t.ids for t in targets])
    weights[place] = np.concatenate([t.counts for t in targets]) / draws
    return torch.from_numpy(ids), torch.from_numpy(weights)


def topk_batch(targets: Sequence[logits.TopK]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ids (N, K), log-probabilities (N, K), log of the residual mass (N,) and log-normalizer (N,)."""
    return (
        torch.from_numpy(np.concatenate([t.ids for t in targets]).astype(np.int64)),
        torch.from_numpy(np.concatenate([t.logprobs for t in targets])),
        torch.from_numpy(np.concatenate([t.log_tail for t in targets])),
        torch.from_numpy(np.concatenate([t.log_z for t in targets])),
    )
