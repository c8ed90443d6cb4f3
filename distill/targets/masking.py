"""Masks tokens at which two teachers disagree, so that a student learns less of the traits that only one teacher has.

    mask = Masking(("teacher", "other"))
    stream = open_stream(folder, reader, cache, Choice(512, teachers=mask.names, merge=first, mask=mask))

A token is masked if, at its position, the most likely token of the teacher is not a most likely token of the other
teacher. Schrodi et al. 2025 (arXiv 2509.23886) call such tokens divergence tokens. They found that hidden traits of a
teacher pass to a student mostly through these tokens. The other teacher should know everything that the student is
meant to learn, but should not have the trait. An example is the model from which the teacher was fine-tuned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from synthgen import logits
from synthgen.errors import CorpusError
from synthgen.logits import LogitsMeta
from synthgen.results.training import Masked


def differ(own: logits.TopK, other: logits.TopK) -> logits.Bools:
    """(T,): for each position, whether the most likely token of `own` is not a most likely token of `other`.

    If several tokens have the highest probability in `other`, each of them is a most likely token.
    """
    rows = np.arange(len(own))
    best_T = own.ids[rows, own.logprobs.argmax(-1)]
    found_TK = np.where(other.ids == best_T[:, None], other.logprobs, -np.inf)
    return np.asarray(found_TK.max(-1) < other.logprobs.max(-1))


@dataclass(frozen=True)
class Masking:
    """Masks the tokens of a row at which the teacher `names[0]` and the teacher `names[1]` differ; see `differ`."""

    names: tuple[str, str]

    def __call__(self, targets: Sequence[logits.Target], metas: Sequence[LogitsMeta]) -> logits.Bools:
        """The mask of one row. Raises CorpusError when the distributions are not of kind top-k, or have different
        tokenizers.
        """
        own, other = targets
        if not (isinstance(own, logits.TopK) and isinstance(other, logits.TopK)):
            raise CorpusError(
                "train.mask_divergence compares most likely tokens, and draws do not show them",
                "generate with logits: {kind: topk}, or leave train.mask_divergence out",
            )
        if metas[0]["tokenizer"] != metas[1]["tokenizer"]:
            raise CorpusError(
                f"the logits of {' and '.join(self.names)} have different tokenizers, so they cannot be compared",
                "name in train.mask_divergence a teacher with the same tokenizer",
            )
        return differ(own, other)

    def facts(self, rows: Iterable[tuple[Sequence[logits.Target], Sequence[LogitsMeta]]]) -> Masked:
        """How many tokens of the training rows are masked, for training.json.

        Raises CorpusError when all tokens are masked.
        """
        masks = [self(targets, metas) for targets, metas in rows]
        masked, tokens = sum(int(mask.sum()) for mask in masks), sum(map(len, masks))
        if masked == tokens:
            raise CorpusError(
                f"train.mask_divergence leaves nothing to learn: {self.names[0]} and {self.names[1]} differ at all "
                f"{tokens:,} tokens",
                "name a teacher that is closer to the first one, or leave train.mask_divergence out",
            )
        return Masked(against=self.names[1], masked=masked, tokens=tokens)


def first(targets: Sequence[logits.Target], metas: Sequence[LogitsMeta]) -> tuple[logits.Target, LogitsMeta]:
    """The target of the first teacher. See `distill.data.Merge`."""
    return targets[0], metas[0]
