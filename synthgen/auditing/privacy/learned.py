"""The rows for the tests of a student: rows that it learned, and rows of the same corpus that were held out.

Only one row of each seed or group is used, so that the rows are independent. The rows are chosen by a hash, so they do
not depend on the order of the corpus. Learned and held-out rows are chosen in the same way, among the kept rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synthgen import corpus
from synthgen.auditing.privacy.canaries import make
from synthgen.lm.tokens import Tokens
from synthgen.records import Message
from synthgen.results.training import Training

_COLUMNS = ("id", "seed_id", "group_id", "prompt", "completion", "token_ids", "tools", "pair_role")


@dataclass(frozen=True)
class Text:
    """A row of the corpus, as the student reads it: the token ids of its prompt and of its completion, and the text of
    the completion.
    """

    id: str
    prompt: list[int]
    completion: list[int]
    text: str


def texts(source: Path, split: str, tokens: Tokens, longest: int, most: int, seed: int) -> list[Text]:
    """At most `most` kept rows of a split, one of each seed or group, in the order of their hashes. Rows of more than
    `longest` tokens are left out, as in training. `seed` chooses the rows. Raises TeacherError when the chat template
    refuses a row, and CorpusError when a file is damaged.
    """
    chosen = [text for row in _chosen(source, split, most, seed) if (text := _text(tokens, row)) is not None]
    return [one for one in chosen if len(one.prompt) + len(one.completion) <= longest]


def _chosen(source: Path, split: str, most: int, seed: int) -> list[Mapping[str, object]]:
    """One row of each of `most` units. A unit is a seed or a group. Of each unit, the row with the smallest hash is
    used. If there are more units, the units with the smallest hashes are used. At most 2 · `most` rows are in memory.
    """
    found: dict[str, tuple[int, Mapping[str, object]]] = {}
    bound = 1 << 64
    for _, batch in corpus.batches(source, "data", _COLUMNS, split):
        for row in batch.to_pylist():
            unit = f"group {row['group_id']}" if row["group_id"] is not None else f"seed {row['seed_id']}"
            if row["pair_role"] == "rejected" or _hash(seed, unit) > bound:
                continue
            place = _hash(seed, f"row {row['id']}")
            if unit not in found or place < found[unit][0]:
                found[unit] = (place, row)
        if len(found) > 2 * most:
            kept = sorted(found, key=lambda unit: _hash(seed, unit))[:most]
            bound = _hash(seed, kept[-1])
            found = {unit: found[unit] for unit in kept}
    return [found[unit][1] for unit in sorted(found, key=lambda unit: _hash(seed, unit))[:most]]


def _hash(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest())


def _text(tokens: Tokens, row: Mapping[str, object]) -> Text | None:
    """The token ids of a row, the same as `distill.streaming.conversations` makes. None if the completion is missing,
    has several messages, or has no text.
    """
    prompt, completion = _messages(row["prompt"]), _messages(row["completion"])
    if len(completion) != 1 or not isinstance(completion[0].get("content"), str):
        return None
    text, tools = str(completion[0]["content"]), row["tools"]
    stored = row["token_ids"]
    given = [int(token) for token in stored] if isinstance(stored, list) else []
    if not prompt:
        ids = [*tokens.beginning, *tokens.ids(text)]
        return Text(str(row["id"]), ids[:1], ids[1:], text) if len(ids) > 1 else None
    is_open = prompt[-1]["role"] == "assistant"
    write = tokens.render_open if is_open else tokens.render
    ids = write(prompt, str(tools) if tools else None)
    if completion[0].get("reasoning_content") or completion[0].get("tool_calls"):
        answer = tokens.answer(prompt, completion, str(tools) if tools else None)
    else:
        answer = tokens.completion(text, given)
    return Text(str(row["id"]), ids, answer, text) if answer else None


def _messages(value: object) -> list[Message]:
    return list(value) if isinstance(value, list) else []


def why_not(trained: Training) -> str:
    """The reason why the student did not learn the rows of the corpus as they are, or "" if it did."""
    section = trained.train
    if why := unfinished(trained):
        return why
    share = section.get("share", 1.0)
    if isinstance(share, int | float) and share < 1:
        return "the student learned only a share of the training rows (train.share)"
    if section.get("online"):
        return "the student learned online, from texts that are not in the corpus"
    rationale = section.get("rationale")
    if isinstance(rationale, Mapping) and rationale.get("mode") != "then_answer":
        return "the student learned the rows in another form (train.rationale)"
    return ""


def unfinished(trained: Training) -> str:
    """Why some training rows and canaries were never learned, or "" if each was learned at least once. A training may
    end in its first epoch by `train.max_steps`, or because early stopping took the weights of an early step.
    """
    section = trained.train
    planted, size = section.get("canaries"), section.get("batch_size")
    if not isinstance(size, int):
        return ""
    extra = sum(one.repeats for one in make(**planted)) if isinstance(planted, dict) else 0
    epoch, steps = -(-(trained.rows + extra) // size), learned_steps(trained)
    if steps >= epoch:
        return ""
    return (
        f"the student has the weights of step {steps:,}, and an epoch has {epoch:,} steps, so it is not known which "
        "rows and canaries it learned: train for an epoch or more"
    )


def learned_steps(trained: Training) -> int:
    """The number of steps after which the student has its weights. With early stopping, these are the weights with the
    lowest validation loss.
    """
    metrics = next(iter(trained.metrics.values()), [])
    measured = [one for one in metrics if "validation" in one]
    if trained.train.get("early_stopping_patience") and measured:
        return int(min(measured, key=lambda one: one["validation"])["step"]) + 1
    return trained.steps
