"""The teacher's confidence in its own tokens, from its stored distributions (docs/design.md, section Curation).

`stored.confidence` is a column with four measures of each row. A measure is the mean over the T tokens of the
completion, at temperature 1 and with the prompt that the teacher got:

- `logprob`: log p of the token, in nats.
- `probability`: p of the token.
- `entropy`: the entropy of K + 1 outcomes, in nats: the K stored ids, and all other ids together. This value is at most
  the entropy of the whole distribution, and equal to that entropy if K is the size of the vocabulary.
- `margin`: p of the most probable token minus p of the second most probable token.

A measure is null where the stored distributions do not give it:

- A stored top-k gives all four measures if it holds every token of the completion, and otherwise only `entropy` and
  `margin`.
- Draws at temperature 1 give only `probability`: the count of a token divided by the number of draws is an unbiased
  estimate of p. The logarithm of a count, the entropy of counts and the difference of the two largest counts are
  biased.
- Draws at another temperature give no measure.
- A row has no measures if the teacher that wrote it stored no distributions, or if an edit changed its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen import corpus, logits
from synthgen.curation.columns import CONFIDENCE
from synthgen.curation.lists import lengths
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.logits import Sampled, Target, TopK
from synthgen.tables.curation_settings import Confidence

MEASURES = ("logprob", "probability", "entropy", "margin")
SCORES = {
    "logprob": "teacher_logprob",
    "probability": "teacher_probability",
    "entropy": "teacher_entropy_at_least",
    "margin": "teacher_margin",
}
"""The name of the score of each measure."""
_UNKNOWN = (np.nan,) * len(MEASURES)
_TYPE = pa.struct([(name, pa.float64()) for name in MEASURES])

Floats = npt.NDArray[np.float64]


def confidence(batch: pa.RecordBatch, section: Confidence, services: Services) -> Verdicts:
    """Score each row by the measures of its distributions. A row is rejected only if a bound is set and the measure of
    this bound is known.
    """
    values = {name: _floats(batch[CONFIDENCE].field(place)) for place, name in enumerate(MEASURES)}
    bounds = [
        ("min_logprob", "logprob", section.min_logprob, "mean log-probability"),
        ("min_probability", "probability", section.min_probability, "mean probability"),
        ("max_entropy", "entropy", section.max_entropy, "mean entropy, at least"),
        ("min_margin", "margin", section.min_margin, "mean margin"),
    ]
    rejected: dict[int, Rejection] = {}
    for rule, name, bound, words in bounds:
        if bound is None:
            continue
        beyond = values[name] > bound if rule == "max_entropy" else values[name] < bound
        side = "more" if rule == "max_entropy" else "less"
        for row in np.flatnonzero(beyond).tolist():
            value = values[name][row]
            reason = f"{words} {value:.3f}, {side} than {bound:g}"
            rejected.setdefault(row, Rejection(reason, float(value), rule, threshold=bound))
    return Verdicts(rejected, {SCORES[name]: array for name, array in values.items()})


def _floats(values: pa.Array) -> Floats:
    return np.asarray(values.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64)


def of_shard(folder: Path, shard: str, edited: pa.Table | None) -> pa.Array:
    """The column `stored.confidence` for the rows of one shard of the corpus `folder`. `edited` holds the columns that
    edits changed. If an edit cut the tokens of a row, the scores are for the tokens that are left. Reads the
    distributions of all teachers that wrote rows of the shard, a few rows at a time.

    Raises CorpusError when the distributions of a row belong to other tokens.
    """
    rows = corpus.read_columns(folder / "data" / f"{shard}.parquet", ["id", "teacher", "token_ids"])
    token_ids = rows["token_ids"].combine_chunks()
    held = lengths(token_ids)  # for each row: how many of its tokens are measured
    if edited is not None and "token_ids" in edited.column_names:
        after = edited["token_ids"].combine_chunks()
        pairs = zip(token_ids.to_pylist(), after.to_pylist(), strict=True)
        held = np.array([len(b) if a and b and a[: len(b)] == b else 0 for a, b in pairs], np.int64)
    measures = np.full((len(rows), len(MEASURES)), np.nan)
    wanted: dict[str, dict[str, list[int]]] = {}  # teacher → id → its rows
    for row in np.flatnonzero(held > 0).tolist():
        teacher = rows["teacher"][row].as_py()
        wanted.setdefault(teacher or "", {}).setdefault(rows["id"][row].as_py(), []).append(row)
    for teacher, places in wanted.items():
        path = folder / "logits" / teacher / f"{shard}.parquet"
        if teacher and path.exists():
            _measure_file(path, places, (token_ids, held), measures)
    columns = [pa.array(column, pa.float64(), from_pandas=True) for column in measures.T]
    return pa.StructArray.from_arrays(columns, fields=list(_TYPE))


def _measure_file(
    path: Path, places: dict[str, list[int]], tokens: tuple[pa.Array, npt.NDArray[np.int64]], measures: Floats
) -> None:
    """Fill `measures` for the rows in `places` (id → rows) from one file of distributions. `tokens` is (column
    `token_ids`, number of ids of each row that are measured).
    """
    token_ids, held = tokens
    for shard in logits.pieces(path):
        for number, record_id in enumerate(shard.ids):
            for row in places.get(record_id, ()):
                ids, count = token_ids[row].as_py(), int(held[row])
                logits.check_aligned(shard, number, record_id, ids, path)
                target = logits.cut(shard.target(number), count)
                measures[row] = measured(target, ids[:count], shard.meta["temperature"])


def measured(target: Target, tokens: Sequence[int], temperature: float) -> tuple[float, ...]:
    """The four measures of one row, in the order of `MEASURES`; NaN where a measure is not known. `tokens` are the T
    tokens of the completion, and `target` holds their T distributions. `temperature` is the temperature of the loss.
    """
    chosen = np.asarray(tokens, np.int64)
    if isinstance(target, Sampled):
        return _of_draws(target, chosen) if temperature == 1.0 else _UNKNOWN
    return _of_topk(target, chosen, temperature)


def _of_draws(target: Sampled, chosen: npt.NDArray[np.int64]) -> tuple[float, ...]:
    if not len(chosen):
        return _UNKNOWN
    place = np.repeat(np.arange(len(target)), target.uniques)
    counts = np.bincount(place, target.counts, len(target))
    hits = np.bincount(place, target.counts * (target.ids == chosen[place]), len(target))
    return np.nan, float((hits / counts).mean()), np.nan, np.nan


def _of_topk(target: TopK, chosen: npt.NDArray[np.int64], temperature: float) -> tuple[float, ...]:
    if not len(chosen):
        return _UNKNOWN
    logp = target.logprobs.astype(np.float64)
    missing = np.zeros(logp.shape, bool)
    # an empty slot repeats the first id; slots are empty where a server sent fewer candidates
    missing[:, 1:] = target.ids[:, 1:] == target.ids[:, :1]
    tail = _tail(target, logp, missing, temperature)
    p = np.where(missing, 0.0, np.exp(logp))
    own = (target.ids == chosen[:, None]) & ~missing & (logp > logits.FLOOR)
    found = own.any(axis=1).all()
    logprob = float(logp[own].mean()) if found else np.nan
    probability = float(p[own].mean()) if found else np.nan
    spread = -(p * np.where(missing, 0.0, logp)).sum(axis=1) - tail * np.log(np.maximum(tail, 1e-300))
    return logprob, probability, float(spread.mean()), _margin(p, missing, tail)


def _margin(p: Floats, missing: npt.NDArray[np.bool_], tail: Floats) -> float:
    """The mean margin; NaN if the second best token is not known at some position. If a position has empty slots, its
    second stored token is surely the second best only if it is at least as probable as the sum of all tokens that are
    not stored.
    """
    if p.shape[1] < 2:
        return np.nan
    unsure = missing.any(axis=1) & (missing[:, 1] | (tail > p[:, 1]))
    return np.nan if unsure.any() else float((p[:, 0] - p[:, 1]).mean())


def _tail(target: TopK, logp: Floats, missing: npt.NDArray[np.bool_], temperature: float) -> Floats:
    """The probability, at temperature 1, of all ids that are not stored, at each position. The stored value is at the
    temperature of the loss. If that temperature is not 1, the result is 1 minus the probability of the stored ids, with
    an error of 0.001.
    """
    if temperature == 1.0:
        return np.exp(target.log_tail.astype(np.float64))
    return np.clip(1.0 - np.where(missing, 0.0, np.exp(logp)).sum(axis=1), 0.0, 1.0)
