"""From a corpus to batches: rows with their stored distributions, in an order that is a function of the step.

Kept rows teach by cross-entropy and by the stored distribution; rejected rows that are not degenerate by the
distribution alone. Logits are matched to rows by id and by their alignment hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill import losses
from synthgen import corpus, logits
from synthgen.errors import CorpusError, nearest
from synthgen.records import Message, Record


@dataclass(frozen=True)
class Example:
    """One row to learn from; `prompt` in the student's tokens, `target` for each completion token (None: the tokens
    alone). `teacher_prompt` is what the teacher was sent, in its tokens; empty where nobody knows. `task` and `also`
    are for rows that teach more than one thing: see `distill.targets.rationale`."""

    id: str
    prompt: list[int]
    completion: list[int]
    target: logits.Target | None
    kept: bool
    teacher_prompt: Sequence[int] = ()
    task: str = ""
    also: tuple[Example, ...] = ()
    parts: Sequence[Any] = ()
    """`distill.targets.across.Part`s: where a teacher with another tokenizer cuts the text differently."""


@dataclass(frozen=True)
class TrainingSet:
    """`meta` is the logits' own: kind, temperature, vocabulary, tokenizer. `left_out` counts rows by reason."""

    examples: list[Example]
    meta: dict[str, Any]
    left_out: dict[str, int]


def rows(folder: Path, split: str, share: float = 1.0) -> list[tuple[Record, bool]]:
    """(record, kept) of one split of a curated corpus, ordered by shard and id; degenerate rows left out.

    `share` of the training seeds, by a hash of each: a smaller share is part of a larger one.
    """
    found = [
        (name, record, part == "data")
        for part in ("data", "rejected")
        for name, records in corpus.records(folder, part, split)
        for record in records
        if not _teaches_nothing(record) and (split != "train" or _place(record.seed_id) < share)
    ]
    return [(record, kept) for _, record, kept in sorted(found, key=lambda f: (f[0], f[1].id))]


def _teaches_nothing(record: Record) -> bool:
    """Was the row dropped for a reason that forbids to learn from it?"""
    return any(reason["teaches"] == "nothing" for reason in record.verdicts)


def _place(seed_id: str) -> float:
    """In [0, 1), a function of the seed alone."""
    return int.from_bytes(hashlib.blake2b(seed_id.encode(), digest_size=8).digest()) / 2**64


Merge = Callable[[Sequence[logits.Target], Sequence[dict[str, Any]]], tuple[logits.Target, dict[str, Any]]]


def load(
    folder: Path,
    render: Callable[[Sequence[Message]], list[int]],
    max_length: int,
    split: str = "train",
    teachers: Sequence[str] = (),
    merge: Merge | None = None,
    *,
    labels_alone: bool = False,
    share: float = 1.0,
    shape: Callable[[Record, Example], Example | None] | None = None,
) -> TrainingSet:
    """The examples of a curated corpus. Raises CorpusError when logits are missing or belong to other rows.

    `teachers` names whose logits are read, where there are several; `merge` makes one target of several, from them
    and their metadata, in that order (`distill.targets.ensemble`). With `labels_alone`, kept rows without their
    distributions. `share`: see `rows`. `shape` makes of a row what it teaches; None leaves it out.
    """
    left_out = {"longer than max_length": 0, "degenerate": 0}
    for _, records in corpus.records(folder, "rejected", split):
        left_out["degenerate"] += sum(_teaches_nothing(r) for r in records)
    indices = [] if labels_alone else stored(folder, teachers)
    examples: list[Example] = []
    meta: dict[str, Any] = {}
    for record, kept in rows(folder, split, share):
        if labels_alone and not kept:
            continue
        prompt, completion = render(record.prompt), list(record.token_ids or ())
        if not completion:
            raise CorpusError(
                f"{folder}: record {record.id} has no tokens: its teacher sent none",
                f"train on its rows as a dataset (`distill train {folder}/data`), or score them: strategy: score",
            )
        if len(prompt) + len(completion) > max_length:
            left_out["longer than max_length"] += 1
            continue
        asked = tuple(record.prompt_token_ids or ())
        if labels_alone:
            _add(examples, left_out, record, Example(record.id, prompt, completion, None, kept, asked), shape)
            continue
        targets, metas = [], []
        for where in indices:
            if record.id not in where:
                raise CorpusError(
                    f"no logits for record {record.id} of {folder}",
                    "generate with a `logits` section, or repair: `synthgen generate … --repair`",
                )
            path, shard, row = where[record.id]
            logits.check_aligned(shard, row, record.id, completion, path)
            targets.append(shard.target(row))
            metas.append(shard.meta)
        target, found = merge(targets, metas) if merge else (targets[0], metas[0])
        if meta and found != meta:
            raise CorpusError(f"{path}: logits of another kind, teacher or temperature than the other shards'")
        meta = found
        _add(examples, left_out, record, Example(record.id, prompt, completion, target, kept, asked), shape)
    if not examples:
        raise CorpusError(
            f"{folder} has no rows to train on in split '{split}'", "look at the rejects: `synthgen show --rejected`"
        )
    return TrainingSet(examples, meta, left_out)


def _add(
    examples: list[Example],
    left_out: dict[str, int],
    record: Record,
    example: Example,
    shape: Callable[[Record, Example], Example | None] | None,
) -> None:
    shaped = shape(record, example) if shape else example
    if shaped is None:
        left_out["nothing to learn from"] = left_out.get("nothing to learn from", 0) + 1
    else:
        examples.append(shaped)


def stored(folder: Path, teachers: Sequence[str]) -> list[dict[str, tuple[Path, logits.Shard, int]]]:
    """For each of `teachers`, or for the only one there is: where a record's logits lie, by its id."""
    root = next((p for p in (folder / "logits", folder.parent / "generated" / "logits") if p.is_dir()), None)
    if root is None:
        raise CorpusError(
            f"{folder} has no logits beside it",
            "generate with a `logits` section (or score the rows: strategy: score), or learn from the tokens alone: "
            "train.kd_weight: 0",
        )
    there = {p.name: p for p in sorted(root.iterdir()) if p.is_dir()}
    if not teachers and len(there) != 1:
        raise CorpusError(
            f"{root} has logits of {len(there)} teachers: {', '.join(there)}",
            "name one in train.teacher, or merge them: train.ensemble",
        )
    for name in teachers:
        if name not in there:
            raise CorpusError(
                f"{root} has no logits of a teacher '{name}'{nearest(name, there)}",
                "generate with logits.score_by in the recipe",
            )
    return [_logits_index(there[name]) for name in teachers or there]


def _logits_index(folder: Path) -> dict[str, tuple[Path, logits.Shard, int]]:
    found = {}
    for path in sorted(p for p in folder.glob("*.parquet") if not p.name.startswith(".")):
        shard = logits.read(path)
        for row, record_id in enumerate(shard.ids):
            found[record_id] = (path, shard, row)
    return found


def batch_rows(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    """Row numbers of optimizer step `step`: each epoch is a permutation of all rows, a function of (seed, epoch)."""
    per_epoch = -(-count // batch_size)
    epoch, number = divmod(step, per_epoch)
    order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
    return [int(i) for i in order[number * batch_size : (number + 1) * batch_size]]


def target_batch(targets: Sequence[logits.Target | None], meta: dict[str, Any]) -> losses.Target:
    """All positions of all rows, row after row, as the loss takes them; `meta` is the shards' own."""
    kind = logits.Sampled if meta["kind"] == "sampled" else logits.TopK
    if not all(isinstance(target, kind) for target in targets):
        raise ValueError(f"targets are not of the kind that their shards state: {meta['kind']}")
    if meta["kind"] == "sampled":
        return losses.Sampled(*sampled_batch(targets, meta["draws"]))  # type: ignore[arg-type]
    parts = topk_batch(targets)  # type: ignore[arg-type]
    return losses.TopK(*parts, int(parts[0].max()) if parts[0].numel() else 0)


def sampled_batch(targets: Sequence[logits.Sampled], draws: int) -> tuple[Tensor, Tensor]:
    """ids and weights (N, U) over all positions of all rows, padded with weight 0."""
    uniques = np.concatenate([t.uniques for t in targets]).astype(np.int64)
    place = np.arange(uniques.max())[None, :] < uniques[:, None]
    ids, weights = np.zeros(place.shape, np.int64), np.zeros(place.shape, np.float32)
    ids[place] = np.concatenate([t.ids for t in targets])
    weights[place] = np.concatenate([t.counts for t in targets]) / draws
    return torch.from_numpy(ids), torch.from_numpy(weights)


def topk_batch(targets: Sequence[logits.TopK]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids, log-probabilities (N, K), log of the mass left out, log-normalizer (N,)."""
    return (
        torch.from_numpy(np.concatenate([t.ids for t in targets]).astype(np.int64)),
        torch.from_numpy(np.concatenate([t.logprobs for t in targets])),
        torch.from_numpy(np.concatenate([t.log_tail for t in targets])),
        torch.from_numpy(np.concatenate([t.log_z for t in targets])),
    )
