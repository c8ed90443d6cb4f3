"""Merges several teachers' stored distributions of the same tokens into one.

    merge = Merge(("a", "b"), how="mean", by="weights", weights=(0.7, 0.3))
    stream = open_stream(folder, reader, cache, Choice(512, teachers=merge.names, merge=merge))

There are two ways to merge. Here p_k is the distribution of teacher k at the temperature of the loss, q is the student,
and the weights w sum to 1:

    mean  Σ_k w_k p_k                    the linear pool; the KL from it has the gradient of Σ_k w_k KL(p_k ‖ q)
    pool  Π_k p_k^w_k / Z                the log-opinion pool, which is the same as averaging the logits

Top-k: the result keeps the union of the teachers' kept ids. An id that teacher k did not keep gets an even share of the
teacher's residual mass ρ_k. The share is ρ_k / (V − number of ids that k kept). If the id got probability zero instead,
the mean would be wrong and the pool would be zero. The bucket of all ids outside the union gets the sum of the even
shares of these ids. The result is exact if every teacher kept the whole vocabulary. Otherwise the distribution of each
teacher has an error of at most ρ_k in total variation. The error of the mean is therefore at most Σ w_k ρ_k. In the
pool, the ratio of the probabilities of two ids is exact if all teachers kept both ids.

The stored normalizer gives log-probabilities at the temperature of the loss. Merging at this temperature therefore
needs no further approximation. For the mean, the distributions are tempered before they are averaged, because the
opposite order cannot be computed from a top-k. For the pool, tempering before or after merging gives the same result.

Sampled: the weighted draws of all teachers are an unbiased estimate of the mean. The recipe refuses a pool of draws: a
pool is not linear in the probabilities, and an id that one teacher never drew would have probability zero in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data import NO_ROWS, Choice
from distill.streaming.stream import Stream
from synthgen import logits
from synthgen.errors import CorpusError, UserError
from synthgen.logits import Ints, LogitsMeta
from synthgen.recipe import Ensemble, Recipe, TrainSection
from synthgen.results import training

Array = npt.NDArray[np.float64]
Metas = Sequence[LogitsMeta]

Read = Callable[[Choice], Stream]
"""Opens the rows of one curated corpus."""

_FORMULAS = {"mean": "mean", "pool": "log-opinion pool"}  # in words


@dataclass
class Merge:
    """Merges the targets of one row. The targets are in the order of `names`.

    `weights` sum to 1. When `weights` is None, the weights of each row are computed from the teachers' agreement on the
    row. `by` says in words where the weights come from, for model cards.
    """

    names: tuple[str, ...]
    how: str
    by: str
    weights: tuple[float, ...] | None = None

    def __call__(self, targets: Sequence[logits.Target], metas: Metas) -> tuple[logits.Target, LogitsMeta]:
        """Return the merged target and its metadata.

        Raises CorpusError when the targets differ in kind, temperature or tokenizer.
        """
        self._check(metas)
        vocabulary = min(meta["vocab_size"] for meta in metas)
        teachers = [meta["teacher"] for meta in metas]
        meta: LogitsMeta = {
            **metas[0],
            "vocab_size": vocabulary,
            "teacher": " and ".join(teachers),
            "teachers": teachers,
        }
        topk = [target for target in targets if isinstance(target, logits.TopK)]
        if not topk:
            assert self.weights is not None
            draws = [target for target in targets if isinstance(target, logits.Sampled)]
            return mixed(draws, metas, self.weights), meta
        return merged(topk, metas, self.weights_of(topk, metas), self.how), {
            **meta,
            "k": sum(each["k"] for each in metas),
        }

    def weights_of(self, targets: Sequence[logits.TopK], metas: Metas) -> tuple[float, ...]:
        """The weights of the teachers in one row."""
        return self.weights or agreement(aligned(targets, metas)[1])

    def _check(self, metas: Metas) -> None:
        facts: dict[str, list[str]] = {
            "kind": [meta["kind"] for meta in metas],
            "temperature": [str(meta["temperature"]) for meta in metas],
            "tokenizer": [meta["tokenizer"] for meta in metas],
        }
        for key, values in facts.items():
            different = list(dict.fromkeys(values))
            if len(different) > 1:
                raise CorpusError(
                    f"logits of {' and '.join(self.names)} differ in {key}: {' and '.join(different)}",
                    "generate the logits of all teachers in one run, with logits.score_by",
                )

    def facts(self, rows: Iterable[tuple[Sequence[logits.Target], Metas]]) -> training.Ensemble:
        """The facts for training.json and the model card. `rows` are the targets of the training rows. `rows` are read
        only if each row has its own weights.
        """
        if self.weights:
            weights = _named(self.names, np.array(self.weights))
            return training.Ensemble(merge=self.how, by=self.by, weights=weights, deviations=None)
        used = np.array([self.weights_of([t for t in ts if isinstance(t, logits.TopK)], metas) for ts, metas in rows])
        weights, deviations = _named(self.names, used.mean(0)), _named(self.names, used.std(0))
        return training.Ensemble(merge=self.how, by=self.by, weights=weights, deviations=deviations)

    @classmethod
    def again(cls, facts: training.Ensemble) -> Merge:
        """Rebuild the `Merge` that `facts` describe."""
        weights = tuple(facts.weights.values()) if facts.deviations is None else None
        return cls(tuple(facts.weights), facts.merge, facts.by, weights)


def in_words(facts: training.Ensemble) -> str:
    """Describe the distributions that a student of an ensemble learned from, for the model card."""
    shares = ", ".join(f"{name} {weight:.3f}" for name, weight in facts.weights.items())
    how = _FORMULAS[facts.merge]
    return f"the {how} of several teachers' stored distributions, weights by {facts.by}: {shares}"


def _named(names: Sequence[str], values: Array) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, values, strict=True)}


def sources(recipe: Recipe, folder: Path, read: Read) -> tuple[tuple[str, ...], Merge | None]:
    """Return (names of the teachers whose stored distributions are used, how they are merged).

    An empty tuple of names means that the corpus has distributions of only one teacher, and that these are used. `read`
    opens rows of the corpus in `folder`. `read` is called only when the validation rows decide the weights. Raises
    UserError when there are no validation rows.
    """
    train, kept = recipe.train, recipe.logits
    assert train is not None
    assert kept is not None
    section = train.ensemble
    if section is None:
        return ((train.teacher,) if train.teacher else ()), None
    merge = planned(section, [*(recipe.mixture or list(recipe.teachers)[:1]), *kept.score_by], folder, read, train)
    return merge.names, merge


def planned(
    section: Ensemble,
    names: Sequence[str],
    folder: Path,
    read: Read,
    train: TrainSection,
) -> Merge:
    """The `Merge` of a recipe. `names` are the teachers with stored distributions. The recipe may name only some of
    these teachers.
    """
    names = tuple(section.names or names)
    given = section.weights
    if given is not None:
        total = sum(given)
        return Merge(names, section.merge, "the recipe", tuple(weight / total for weight in given))
    if section.by == "agreement":
        return Merge(names, section.merge, "agreement in each row (means)")
    if section.by == "validation":
        weights = by_validation(folder, read, train.max_length, names, section.merge)
        return Merge(names, section.merge, "likelihood of the validation rows", weights)
    return Merge(names, section.merge, "none (equal)", (1 / len(names),) * len(names))


def merged(targets: Sequence[logits.TopK], metas: Metas, weights: Sequence[float], how: str) -> logits.TopK:
    """Merge top-k targets by mean or pool, at the temperature of the loss, over the union of their ids.

    Ids are in descending order of probability. The number of slots of a position is the sum of the teachers' k, but at
    most the vocabulary size. Slots that the union does not fill have no mass, and their id is the vocabulary size.
    Log-probabilities are multiplied by T before they are stored, and log_z is 0, so log p / T − log_z in the loss is
    exact.
    """
    ids_TU, logp_KTU = aligned(targets, metas)
    merged_TU = _combine(logp_KTU, weights, how)
    kept_TU, temperature = merged_TU[:, :-1], float(metas[0]["temperature"])
    order = np.argsort(-kept_TU, axis=-1, kind="stable")
    zeros = np.zeros(len(ids_TU), np.float32)
    return logits.TopK(
        np.take_along_axis(ids_TU, order, -1).astype(np.int32),
        (temperature * np.take_along_axis(kept_TU, order, -1)).astype(np.float32),
        merged_TU[:, -1].astype(np.float32),
        zeros,
    )


def mixed(targets: Sequence[logits.Sampled], metas: Metas, weights: Sequence[float]) -> logits.Sampled:
    """Merge the draws of all teachers. Counts of teacher k are multiplied by w_k · N / N_k.

    N_k is the number of draws of teacher k, and N is the number of draws of the first teacher. Counts / N are then an
    unbiased estimate of the mean.
    """
    size = max(int(meta["vocab_size"]) for meta in metas)
    keys, counts = [], []
    for target, meta, weight in zip(targets, metas, weights, strict=True):
        keys.append(np.repeat(np.arange(len(target)), target.uniques) * size + target.ids)
        counts.append(target.counts * (weight * metas[0]["draws"] / meta["draws"]))
    found, place = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.bincount(place, np.concatenate(counts), len(found)).astype(np.float32)
    uniques = np.bincount(found // size, minlength=len(targets[0]))
    return logits.Sampled((found % size).astype(np.int32), sums, uniques.astype(np.uint32))


def aligned(targets: Sequence[logits.TopK], metas: Metas, *, at_one: bool = False) -> tuple[Ints, Array]:
    """Return (union of the kept ids (T, U), log-probabilities (K, T, U + 1)) of K teachers at T positions.

    The union is padded with the vocabulary size. The log-probabilities are at the temperature of the loss, or at 1 with
    `at_one`. The last column of the log-probabilities is for all ids outside the union. The vocabulary size is the
    smallest of the teachers' sizes. Larger ids are padding, and are left out.
    """
    size = min(meta["vocab_size"] for meta in metas)
    kept = [_kept(target, size) for target in targets]
    union = np.sort(np.concatenate(kept, -1), -1)
    union[:, 1:][union[:, 1:] == union[:, :-1]] = size
    union = np.sort(union, -1)[:, : min(union.shape[-1], size)]
    outside_T = size - (union < size).sum(-1)
    logp_KTU = np.full((len(targets), len(union), union.shape[-1] + 1), -np.inf)
    rows = np.arange(len(union))[:, None] * (size + 1)
    for logp_TU, target, meta, ids_TS in zip(logp_KTU, targets, metas, kept, strict=True):
        temperature = 1.0 if at_one else float(meta["temperature"])
        values = target.logprobs.astype(np.float64) / temperature
        values -= 0 if at_one else target.log_z.astype(np.float64)[:, None]
        tail_T = target.log_tail.astype(np.float64)
        if at_one and meta["temperature"] != 1.0:
            left = 1 - np.exp(target.logprobs.astype(np.float64)).sum(-1)
            tail_T = np.where(np.isneginf(tail_T), -np.inf, np.log(left.clip(np.exp(logits.FLOOR))))
        unkept_T = int(meta["vocab_size"]) - (_kept(target, 1 << 31) < 1 << 31).sum(-1)
        missing_T = tail_T - np.log(np.maximum(unkept_T, 1))
        order = np.argsort(ids_TS, -1, kind="stable")
        keys = (rows + np.take_along_axis(ids_TS, order, -1)).ravel()
        wanted = (rows + union).ravel()
        place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        there = (keys[place] == wanted).reshape(union.shape)
        kept_TU = np.take_along_axis(values, order, -1).ravel()[place].reshape(union.shape)
        logp_TU[:, :-1] = np.where(there, kept_TU, missing_T[:, None])
        logp_TU[:, :-1][union == size] = -np.inf
        with np.errstate(divide="ignore"):
            logp_TU[:, -1] = missing_T + np.log(outside_T)
        logp_TU -= _logsumexp(logp_TU)[:, None]
    return union, logp_KTU


def _kept(target: logits.TopK, size: int) -> Ints:
    """The ids that the target keeps. Empty slots and ids above `size` get the value `size`.

    An empty slot repeats the first id; see `synthgen.teachers.server_tokens`.
    """
    ids = target.ids.astype(np.int64)
    ids[:, 1:][ids[:, 1:] == ids[:, :1]] = size
    return np.minimum(ids, size)


def _combine(logp_KTU: Array, weights: Sequence[float], how: str) -> Array:
    """Return the log-probabilities (T, U + 1) of the mean or the pool, normalized."""
    positive = [(weight, logp) for weight, logp in zip(weights, logp_KTU, strict=True) if weight > 0]
    if how == "mean":
        out = _logsumexp(np.stack([np.log(weight) + logp for weight, logp in positive], -1))
    else:
        out = sum((weight * logp for weight, logp in positive), np.zeros_like(logp_KTU[0]))
    return out - _logsumexp(out)[:, None]


def _logsumexp(values: Array) -> Array:
    """Log-sum-exp over the last axis. The result is −inf when all values are −inf."""
    top = values.max(-1)
    top = np.where(np.isneginf(top), 0, top)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - top[..., None]).sum(-1)) + top


def agreement(logp_KTU: Array) -> tuple[float, ...]:
    """Return the weights of K teachers in one row, computed from how well the teachers agree.

    The agreement of two teachers is the mass that their distributions have in common (1 − total variation), as a mean
    over the row's tokens. A teacher's weight is proportional to the sum of its agreements with the others. This is the
    relative agreement degree of Hsu and Chen 1996 (Fuzzy Sets and Systems 79), applied to distributions. If there are
    only two teachers, each gets the weight ½.
    """
    p = np.exp(logp_KTU)
    common = np.array([[np.minimum(a, b).sum(-1).mean() for b in p] for a in p])
    degree = common.sum(-1) - common.diagonal()
    if degree.sum() <= 0:
        return (1 / len(p),) * len(p)
    return tuple(float(share) for share in degree / degree.sum())


def by_validation(
    folder: Path,
    read: Read,
    most: int,
    names: Sequence[str],
    how: str,
) -> tuple[float, ...]:
    """Return the weights that maximize the likelihood of the kept validation rows under the merged distribution.

    The distribution is taken at temperature 1. The log-likelihood is concave in the weights, both for the mean (optimal
    prediction pools, Geweke and Amisano 2011) and for the pool (Heskes 1998). Every local maximum is therefore a global
    maximum. Each row was written by one of the teachers, and this teacher has an advantage on the row. Without kept
    rows, all validation rows are used. Raises UserError when there are no validation rows.
    """
    try:  # this `merge` only provides metadata; the targets of all teachers are read below
        choice = Choice(most, "validation", teachers=tuple(names), merge=lambda targets, metas: (targets[0], metas[0]))
        stream = read(choice)
    except CorpusError as error:
        if NO_ROWS not in str(error):
            raise
        raise UserError(
            f"train.ensemble.by is 'validation', and {folder} has no validation rows",
            "set split.validation in the recipe",
        ) from None
    rows = stream.without_targets()
    chosen = [number for number, row in enumerate(rows) if row.kept] or range(len(rows))
    parts = []
    for number in chosen:
        targets, metas = stream.unmerged(number)
        topk = [target for target in targets if isinstance(target, logits.TopK)]
        parts.append((topk, metas, rows[number].completion))
    return best_weights(parts, how)


def best_weights(
    rows: Sequence[tuple[Sequence[logits.TopK], Metas, Sequence[int]]], how: str, steps: int = 500
) -> tuple[float, ...]:
    """Return the weights with the highest mean log-likelihood of the rows' tokens.

    The method is exponentiated gradient ascent. The step size is halved when a step does not improve the value, and
    grows after a step that improves it.
    """
    parts = []
    for targets, metas, tokens in rows:
        ids, logp = aligned(targets, metas, at_one=True)
        hit = ids == np.asarray(tokens)[:, None]
        # A token that no teacher kept is given the probability of the whole bucket. The token's share of the bucket's
        # mass does not depend on the weights.
        column = np.where(hit.any(-1), hit.argmax(-1), ids.shape[-1])
        parts.append((logp, logp[:, np.arange(len(ids)), column]))
    tokens_of_all = sum(at_tokens.shape[-1] for _, at_tokens in parts)

    def climb(weights: Array) -> tuple[float, Array]:
        value, gradient = 0.0, np.zeros(len(weights))
        for logp, at_tokens in parts:
            if how == "mean":
                total = _logsumexp((np.log(weights.clip(1e-300))[:, None] + at_tokens).T)
                value += total.sum()
                gradient += np.exp(at_tokens - total).sum(-1)
            else:
                finite = np.maximum(logp, -1e4)
                joint = np.tensordot(weights, finite, 1)
                norm = _logsumexp(joint)
                value += (weights @ np.maximum(at_tokens, -1e4) - norm).sum()
                pooled = np.exp(joint - norm[:, None])
                gradient += (np.maximum(at_tokens, -1e4) - (pooled * finite).sum(-1)).sum(-1)
        return value / tokens_of_all, gradient / tokens_of_all

    weights = np.full(len(rows[0][0]), 1 / len(rows[0][0]))
    value, gradient = climb(weights)
    step = 1.0
    for _ in range(steps):
        moved = weights * np.exp(step * (gradient - gradient.max()))
        moved /= moved.sum()
        better, there = climb(moved)
        if better < value or not np.isfinite(better):
            step /= 2
            if step < 1e-9:
                break
            continue
        done = np.abs(moved - weights).max() < 1e-7
        weights, value, gradient, step = moved, better, there, step * 1.5
        if done:
            break
    return tuple(float(weight) for weight in weights)
