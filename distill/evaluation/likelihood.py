"""Measures how likely recorded answers are under a student: −log q, in nats a token and in bits a byte. It also makes
the counts from which the calibration error is computed.

Values in nats a token are not comparable between students with different tokenizers. Values in bits a byte are
comparable, because the text has the same bytes for every student.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedModel

from distill import losses
from distill.data import Choice
from distill.evaluation.slices import BINS, calibration_bins
from distill.evaluation.subject import Subject
from distill.held_out import HeldOut, groups
from distill.intervals import Array
from distill.job import Job
from distill.streaming.conversations import reader_of
from distill.streaming.stream import cache_folder, open_stream
from distill.targets.rationale import shape
from synthgen.errors import UserError
from synthgen.lm.forward import completion_logits
from synthgen.lm.load import loaded
from synthgen.lm.tokens import Tokens
from synthgen.ui import UI

_CHUNK = 16  # number of texts whose logits are in memory together

Piece = tuple[list[int], list[int]]
"""A prompt and the answer to it, in the student's tokens."""


@dataclass(frozen=True)
class Recorded:
    """R held-out rows, as the student reads them.

    In each of `rows`, `token_ids` are the row's answers in the student's tokens. `pieces` has the prompts and answers
    of each row: one, or several where a row teaches several turns or tasks. `groups` are the names of the rows' groups.
    `tokens_R` and `bytes_R` count the tokens and the UTF-8 bytes of the answers. `unknown` counts the tokens that stand
    for text that the tokenizer does not know. `too_long` counts the rows that do not fit into the student, and
    `left_out` counts the rows from which the student learns nothing.
    """

    rows: list[HeldOut]
    pieces: list[list[Piece]]
    groups: list[str]
    tokens_R: Array
    bytes_R: Array
    unknown: int
    too_long: int
    left_out: int


def recorded_rows(subject: Subject, job: Job, most: int | None) -> Recorded:
    """Read the first `most` held-out rows in the student's tokens, in the form in which the student learns them. If
    `most` is None, all held-out rows are read.

    Raises UserError when no row fits into the student.
    """
    section, tokens, marker = job.section, job.tokens, job.recipe.generate.answer_marker
    how = shape(section, tokens, marker)
    identity = [section.rationale.model_dump(mode="json"), marker] if how and section.rationale else None
    cache = cache_folder(subject.source, subject.folder)
    choice = Choice(1 << 30, "test", targets=False)
    reader = reader_of(tokens, job.own_teachers, how, identity, reasoning=how is None)
    stream = open_stream(subject.source, reader, cache, choice)
    asked = subject.held_out(most)
    wanted, room = {row.id for row in asked}, _room(subject)
    learned = {e.id: [(one.prompt, one.completion) for one in (e, *e.also)] for e in stream if e.id in wanted}
    stream.close()
    known = [row for row in asked if row.id in learned]
    fits = [row for row in known if all(room.has(piece) for piece in learned[row.id])]
    if not fits:
        raise UserError(
            f"none of the {len(asked)} held-out rows fits into the student",
            "train a student with more positions, or make rows with shorter prompts",
        )
    pieces = [learned[row.id] for row in fits]
    rows = [
        replace(row, token_ids=[i for _, answer in some for i in answer])
        for row, some in zip(fits, pieces, strict=True)
    ]
    texts = [[_text(tokens, answer) for _, answer in some] for some in pieces]
    none = tokens.tokenizer.unk_token_id
    return Recorded(
        rows=rows,
        pieces=pieces,
        groups=groups(rows),
        tokens_R=np.array([len(row.token_ids or ()) for row in rows]),
        bytes_R=np.array([sum(len(text.encode()) for text in some) for some in texts]),
        unknown=sum(i == none for row in rows for i in row.token_ids or ()),
        too_long=len(known) - len(fits),
        left_out=len(asked) - len(known),
    )


def _text(tokens: Tokens, ids: Sequence[int]) -> str:
    """The text of an answer without its end tokens. Other special tokens, such as marks of reasoning, are kept."""
    return str(tokens.tokenizer.decode([i for i in ids if i not in tokens.eos], skip_special_tokens=False))


@dataclass(frozen=True)
class _Room:
    """The number of positions of a student. None when the student's config names no maximum. `apart` says whether
    prompt and answer have positions of their own, as in encoder-decoder models.
    """

    positions: int | None
    apart: bool

    def has(self, piece: Piece) -> bool:
        """Whether a prompt with its answer fits."""
        prompt, answer = map(len, piece)
        return self.positions is None or (max(prompt, answer) if self.apart else prompt + answer) <= self.positions


def _room(subject: Subject) -> _Room:
    name = str(subject.folder)
    config = loaded(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False))
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return _Room(int(positions) if positions else None, bool(config.is_encoder_decoder))


@dataclass(frozen=True)
class Surprise:
    """How a model predicts the answers of R rows. `nats` is (R,): −log q summed over the row's tokens, where q is the
    model's distribution. `bins` is (R, 15, 3); see `distill.evaluation.slices.calibration_bins`.
    """

    nats: Array
    bins: Array


@torch.inference_mode()
def surprise(model: PreTrainedModel, recorded: Recorded, name: str, ui: UI) -> Surprise:
    """Compute the likelihood and the calibration of a model on recorded answers."""
    owners = [row for row, pieces in enumerate(recorded.pieces) for _ in pieces]
    flat = [piece for pieces in recorded.pieces for piece in pieces]
    nats, bins = np.zeros(len(recorded.rows)), np.zeros((len(recorded.rows), BINS, 3))
    with ui.progress(f"evaluate: {name}", len(flat), "answers") as bar:
        for begin in range(0, len(flat), _CHUNK):
            prompts, answers = zip(*flat[begin : begin + _CHUNK], strict=True)
            for place, z_TV in enumerate(completion_logits(model, prompts, answers)):
                labels = torch.tensor(answers[place], device=z_TV.device)
                nats[owners[begin + place]] += float(losses.cross_entropy(z_TV, labels).double().sum())
                bins[owners[begin + place]] += calibration_bins(z_TV, labels)
            bar.advance(len(prompts))
    return Surprise(nats, bins)
