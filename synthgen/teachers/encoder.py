"""Encoder classifiers as teachers. An encoder classifier is a model with a classification head, which computes the
probability of each of its classes.

As input, an encoder classifier gets only the student's question (rendered from user.j2), without examples or
instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from synthgen.errors import TeacherError
from synthgen.lm.control import control_of
from synthgen.lm.load import load_weights, pick_device
from synthgen.lm.tokens import tokenizer_hash
from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import Identity, Reply, Tick, no_tick
from synthgen.teachers.labels import most_likely


def context_of(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The maximum number of tokens that an encoder can read."""
    room = int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
    first = 0
    if any(name in config.model_type for name in _AFTER_PADDING):
        first = 2 if config.model_type == "mpnet" else int(config.pad_token_id or 0) + 1
    return min(room - first, int(tokenizer.model_max_length or room))


# Architectures that number the positions of tokens from pad_token_id + 1 on, so that some positions are never used.
_AFTER_PADDING = ("roberta", "camembert", "mpnet", "data2vec-text", "xmod", "ibert", "longformer", "luke")


def padded(ids: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """The model inputs `input_ids` and `attention_mask`, both (B, T), padded on the right with the id `pad`."""
    width = max(map(len, ids))
    ids_BT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids], device=device)
    lengths_B = torch.tensor([len(row) for row in ids], device=device)
    mask_BT = torch.arange(width, device=device)[None] < lengths_B[:, None]
    return {"input_ids": ids_BT, "attention_mask": mask_BT.long()}


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], most: int | None = None) -> list[list[int]]:
    """Token ids of each text with the tokenizer's own special tokens, truncated to `most` tokens if `most` is given.

    A text without tokens gets a padding token, so every row has at least one token. Characters in a text that spell a
    special token are tokenized as ordinary characters.
    """
    if not texts:
        return []
    control = control_of(tokenizer)
    rows = tokenizer(list(texts), truncation=most is not None, max_length=most, verbose=False)["input_ids"]
    return [
        control.text_ids(text, specials=True, most=most) if control.has(text) else list(ids) or [tokenizer.pad_token_id]
        for text, ids in zip(texts, rows, strict=True)
    ]


class EncoderModel:
    """A loaded classifier as a teacher (see `synthgen.teachers.base.Teacher`). This teacher can only classify texts."""

    can = frozenset({"classify"})

    def __init__(self, model: Any, tokenizer: Any, identity: Identity, batch_size: int) -> None:
        self.model, self.tokenizer, self.identity, self.batch_size = model, tokenizer, identity, batch_size
        names = model.config.id2label or {}
        self.ids = {str(name).casefold(): int(i) for i, name in names.items()}
        self.context = context_of(model.config, tokenizer)

    @classmethod
    def open(cls, section: TeacherSection) -> EncoderModel:
        """Load the model that the recipe names. Raises TeacherError."""
        model, tokenizer, revision = load_weights(section, AutoModelForSequenceClassification)
        model.to(pick_device(section.device))
        identity: Identity = {
            "engine": "transformers",
            "model": section.model,
            "revision": revision,
            "dtype": section.dtype,
            "tokenizer": tokenizer_hash(tokenizer),
            "vocab_size": int(model.config.vocab_size),
            "license": section.license,
        }
        return cls(model, tokenizer, identity, section.batch_size)

    @torch.inference_mode()
    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request. The reply's probabilities are a softmax over the model's classes that are labels
        of the request. The score `label_mass` is the total probability of these classes in a softmax over all classes
        of the model.

        All requests must have the same labels. Raises TeacherError when a label is not a class of the model.
        """
        if not requests:
            return []
        columns, names = self._columns(requests[0].labels), {i: name for name, i in self.ids.items()}
        encoded = token_ids(self.tokenizer, [r.question for r in requests])
        replies = [Reply(failure=self._too_long(ids)) for ids in encoded]
        asked = sorted((i for i, r in enumerate(replies) if r.failure is None), key=lambda i: len(encoded[i]))
        for begin in range(0, len(asked), self.batch_size):
            batch = asked[begin : begin + self.batch_size]
            padded = self.tokenizer.pad({"input_ids": [encoded[i] for i in batch]}, return_tensors="pt")
            z_BL = self.model(**padded.to(self.model.device)).logits.double()
            all_BL, likely_B = z_BL.softmax(-1)[:, columns].cpu(), z_BL.argmax(-1).tolist()
            for row, i in enumerate(batch):
                reply = most_likely(requests[i].labels, all_BL[row].tolist(), names[likely_B[row]])
                replies[i] = replace(reply, prompt_token_ids=encoded[i])
        return replies

    def sample(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """Raises TeacherError, because a classifier generates no text."""
        raise TeacherError(f"'{self.identity['model']}' is a classifier and writes no text", "use strategy classify")

    def score(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """Raises TeacherError, because a classifier has no distribution over tokens."""
        raise TeacherError(f"'{self.identity['model']}' is a classifier and scores no text", "use strategy classify")

    def close(self) -> None:
        """Does nothing, because the model's memory is freed with the object."""

    def _columns(self, labels: Sequence[str]) -> list[int]:
        unknown = [label for label in labels if label.casefold() not in self.ids]
        if unknown:
            raise TeacherError(
                f"'{self.identity['model']}' has no class '{unknown[0]}'; its classes: {', '.join(self.ids)}",
                "name the model's own classes in generate.labels",
            )
        return [self.ids[label.casefold()] for label in labels]

    def _too_long(self, ids: Sequence[int]) -> tuple[str, str] | None:
        if len(ids) <= self.context:
            return None
        return "context", f"text of {len(ids)} tokens exceeds the context of {self.context}"
