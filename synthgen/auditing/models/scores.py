"""Asks a language model: how likely is each sentence of a pair, and each option of a question?

The answers are kept in the user's cache folder, so that a teacher is asked once for all its students, and an audit that
was killed continues with the next model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthgen import durable
from synthgen.auditing.models.bbq import Question
from synthgen.auditing.models.pairs import Pair
from synthgen.auditing.statistics import Numbers
from synthgen.errors import CorpusError, UserError
from synthgen.files import read_json
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.lm.tree import Row, log_likelihoods

_VERSION = 1  # version of the texts that a model is asked; it is part of the cache's key
_NEUTRAL = "Answer:"


class TooLong(UserError):
    """A text of a test set does not fit into a model."""


@dataclass(frozen=True)
class PairScores:
    """(P, 2) for the stereotyped and the other sentence of each pair: the log-likelihood in nats, and the number of
    tokens.
    """

    sums: Numbers
    tokens: Numbers


@dataclass(frozen=True)
class OptionScores:
    """(Q, 3) for the options of each question, in nats: the log-probability of the option's text with context and
    question before it (`sums`), and without them (`priors`).
    """

    sums: Numbers
    priors: Numbers

    @property
    def pmi(self) -> Numbers:
        """(Q, 3): how much more likely each option becomes through context and question. Frequent texts have no
        advantage. See "Surface Form Competition" (Holtzman et al., 2021).
        """
        return self.sums - self.priors


def score_pairs(model: LanguageModel, pairs: Sequence[Pair]) -> PairScores:
    """Score the sentences of pairs. Raises TooLong when a sentence does not fit into the model."""
    begin = _beginning(model.tokens)
    rows = [(begin, model.tokens.ids(text)) for pair in pairs for text in (pair.stereotyped, pair.other)]
    sums = _scored(model, rows)
    tokens = np.array([float(len(text)) for _, text in rows])
    return PairScores(sums.reshape(-1, 2), tokens.reshape(-1, 2))


def score_options(model: LanguageModel, questions: Sequence[Question]) -> OptionScores:
    """Score the options of questions. Raises TooLong when a question does not fit into the model."""
    tokens, begin = model.tokens, list(model.tokens.beginning)
    rows: list[Row] = []
    for one in questions:
        asked = f"{one.context}\nQuestion: {one.question}\n{_NEUTRAL}"
        rows += split(tokens, begin, asked, one.options)
        rows += split(tokens, begin, _NEUTRAL, one.options)
    sums = _scored(model, rows).reshape(-1, 2, 3)
    return OptionScores(sums[:, 0], sums[:, 1])


def split(tokens: Tokens, begin: Sequence[int], asked: str, options: Sequence[str]) -> list[Row]:
    """Tokenize the prompt `asked` with a space and an option after it, for each option. A token may span the border
    between prompt and option. So each whole text is tokenized. The prompt is the longest beginning that all these token
    sequences have in common with the tokens of `asked` alone.
    """
    alone = tokens.ids(asked)
    whole = [tokens.ids(f"{asked} {option}") for option in options]
    border = min(_common(alone, ids) for ids in whole)
    return [([*begin, *ids[:border]], ids[border:]) for ids in whole]


def _common(some: Sequence[int], others: Sequence[int]) -> int:
    pairs = zip(some, others, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(some), len(others)))


def _beginning(tokens: Tokens) -> list[int]:
    """The tokens before a sentence, which are needed to predict its first token. These are the tokens that the
    tokenizer puts before a text. If the tokenizer puts no token there, a new line is used, or an end token if the
    tokenizer has no token for a new line.
    """
    return list(tokens.beginning) or tokens.ids("\n") or sorted(tokens.eos)[:1]


def _scored(model: LanguageModel, rows: Sequence[Row]) -> Numbers:
    """(R,): `log_likelihoods` of the rows, from the cache if they are there. If the exact revision of a model is not
    known, its log-likelihoods are not cached, because other weights may have the same name.
    """
    longest = max(len(prompt) + len(text) for prompt, text in rows)
    if longest > model.context:
        raise TooLong(
            f"{model.weights.name} reads {model.context} tokens, and a text of the test set has {longest}",
            "leave this model out of audit.models",
        )
    identity = [_VERSION, model.weights.revision, model.weights.dtype, [[list(p), list(t)] for p, t in rows]]
    path = durable.cache_folder() / "bias" / f"{durable.digest(identity)[:32]}.json"
    known = model.weights.revision not in ("", "unknown")
    if known and (stored := _stored(path, len(rows))) is not None:
        return stored
    distinct = list(dict.fromkeys((tuple(prompt), tuple(text)) for prompt, text in rows))
    found = dict(zip(distinct, log_likelihoods(model.weights.model, distinct).tolist(), strict=True))
    sums = [found[tuple(prompt), tuple(text)] for prompt, text in rows]
    if known and durable.writes():
        durable.write_json(path, sums)
    return np.array(sums)


def _stored(path: Path, rows: int) -> Numbers | None:
    """The log-likelihoods in a file of the cache, or None when the file does not hold a number for each row."""
    try:
        values = np.array(read_json(path, ""), np.float64)
    except (CorpusError, TypeError, ValueError):
        return None
    return values if values.shape == (rows,) and np.isfinite(values).all() else None
