"""Association (C2): words that occur more often in sentences that mention one group than in sentences that mention
other groups.

Only sentences that mention exactly one group of a dimension count. The words that name the groups of the dimension do
not count. The effect is the logarithm to the base 2 of the ratio of odds, with a prior, as in Monroe, Colaresi and
Quinn, "Fightin' Words", Political Analysis 16 (2008). The prior is Jeffreys' (see `synthgen.bias.rates`). A word that
occurs with only one group counts like any other word.

The test does not treat every use as an observation, because a unit may repeat a word. The variance of the difference of
the two shares is Σ_u s_u², where s_u is a unit's part of the difference, with the correction CR3 (see
`synthgen.auditing.statistics`). So a word that only one unit uses has |z| ≤ 1, even if the unit uses it very often. The
variance has a lower bound: the variance of independent uses of a word that is equally likely on both sides, times the
design effect. Without this bound, a rare word that only one side uses would seem to differ between the sides beyond
doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from synthgen.auditing.result import Measurement, Outcome
from synthgen.auditing.statistics import LEVEL, benjamini_hochberg, contrast
from synthgen.bias.groups import Dimension
from synthgen.bias.rates import Rates, detectable, rates
from synthgen.bias.words import Hashes, Places, Words, or_of

LEAST_USES = 10
"""A word is tested if it occurs at least this often in sentences that mention a group of the dimension."""
FEW = 30
"""With fewer units on a side, the p-values come from Student's t."""
MARGIN = 1.0
"""Minimum effect for the outcome `found`: twice the odds, or half the odds."""
TOP = 10
"""Maximum number of words that a report names for each group and direction."""
_HELD = 1 << 24  # maximum number of entries in memory; beyond it, uses of the same word, unit and group are added up

Numbers = npt.NDArray[np.float64]


@dataclass
class Uses:
    """How often words occur in sentences that mention exactly one group of a dimension.

    An entry is 64 bits: the word's place in the vocabulary, the unit, the group, and the number of uses, from the
    highest to the lowest bits. `totals` (groups, units) is the number of all words in these sentences.
    """

    dimension: Dimension
    words: int
    units: int
    totals: Numbers = field(init=False)
    _parts: list[Hashes] = field(default_factory=list)
    _held: int = 0

    def __post_init__(self) -> None:
        self.totals = np.zeros((len(self.dimension.groups), self.units))
        self._unit_bits = max(self.units - 1, 1).bit_length()
        self._group_bits = max(len(self.dimension.groups) - 1, 1).bit_length()
        self._count_bits = 64 - self._unit_bits - self._group_bits - max(self.words - 1, 1).bit_length()
        if self._count_bits < 12:
            raise OverflowError(f"{self.words} words in {self.units} units are too many to count")

    def add(self, found: Words, masks: Hashes, place: Places, unit_of_row: Places) -> None:
        """Add a batch. `place` is each word's place in the vocabulary, or -1."""
        first, stop = found.by_sentence()
        group = np.repeat(self.dimension.only(or_of(masks & self.dimension.mask, first)), stop - first)
        counted = np.flatnonzero((group >= 0) & (masks & self.dimension.mask == 0))
        group, units = group[counted], unit_of_row[found.rows[counted]]
        np.add.at(self.totals.reshape(-1), group * self.units + units, 1)
        tested = place[counted] >= 0
        keys = place[counted][tested] << self._unit_bits | units[tested]
        keys = (keys << self._group_bits | group[tested]).astype(np.uint64)
        unique, counts = np.unique(keys, return_counts=True)
        self._parts.append(self._packed(unique, counts))
        self._held += len(unique)
        if self._held > _HELD:
            self._merge()

    def _packed(self, keys: Hashes, counts: Places) -> Hashes:
        if counts.max(initial=0) >> self._count_bits:
            raise OverflowError(f"one unit uses a word more than {1 << self._count_bits} times")
        return keys << np.uint64(self._count_bits) | counts.astype(np.uint64)

    def _merge(self) -> None:
        entries = np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint64)
        self._parts.clear()
        entries.sort()
        shift = np.uint64(self._count_bits)
        keys = entries >> shift
        first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.zeros(0, np.int64)
        counts = entries & np.uint64((1 << self._count_bits) - 1)
        if len(first) < len(keys):
            entries = self._packed(keys[first], np.add.reduceat(counts, first).astype(np.int64))
        self._parts, self._held = [entries], 0

    def entries(self) -> tuple[Places, Places, Places, Numbers]:
        """Arrays (word, unit, group, uses) of all entries, which are sorted by word, then by unit, then by group."""
        self._merge()
        [entries] = self._parts
        uses = (entries & np.uint64((1 << self._count_bits) - 1)).astype(float)
        keys = (entries >> np.uint64(self._count_bits)).astype(np.int64)
        group = keys & ((1 << self._group_bits) - 1)
        keys >>= self._group_bits
        return keys >> self._unit_bits, keys & ((1 << self._unit_bits) - 1), group, uses


@dataclass(frozen=True)
class Compared:
    """The tested words of one comparison: their places, effects, standard errors and p-values."""

    word: Places
    rates: Rates
    detectable: Numbers
    p: Numbers
    uses: Numbers
    units: Places

    @property
    def effect(self) -> Numbers:
        """The effects."""
        return self.rates.effect

    def measured(self, place: int, corrected: Numbers, subject: str, word: str) -> Measurement:
        """The measurement of the word at index `place` of the arrays. `corrected` are the corrected p-values of all
        words.
        """
        alone = self.rates.at(place)
        effect, [low], [high] = float(alone.effect[0]), *alone.interval(0.95)
        judged: Outcome = "inconclusive"
        if corrected[place] < LEVEL and abs(effect) >= MARGIN:
            judged = "found"
        elif _within(alone):
            judged = "absent"
        return Measurement(
            name="association",
            subject=f"{subject}, '{word}'",
            about="how much more often the word occurs in sentences with the group than in those with other groups",
            unit="log2 of the ratio of odds",
            outcome=judged,
            n=int(self.uses[place]),
            clusters=int(self.units[place]),
            estimate=effect,
            low=float(low),
            high=float(high),
            p=float(self.p[place]),
            corrected_p=float(corrected[place]),
            family=f"association: {subject.split(':')[0]}",
            detectable=_median(self.detectable[place : place + 1]),
            margin=MARGIN,
        )


def _within(some: Rates) -> bool:
    """Whether the 90% intervals of all words lie within the margin."""
    low, high = some.interval(0.9)
    return bool(((low > -MARGIN) & (high < MARGIN)).all())


def _median(detectable: Numbers) -> float | None:
    """The median of the finite numbers, or None if no number is finite."""
    finite = detectable[np.isfinite(detectable)]
    return float(np.median(finite)) if len(finite) else None


def compared(uses: Uses, group: int) -> Compared:
    """Compare the sentences with `group` and the sentences with the other groups of its dimension. No word is tested if
    all sentences of a side are in one unit, because then nothing is known about other units. If a side has fewer than
    `FEW` units, the p-values come from Student's t with Satterthwaite's degrees of freedom for independent uses (see
    `synthgen.auditing.statistics`). Otherwise they come from the normal distribution, although the variance is
    estimated. A lower bound of the variance makes up for that: in simulations without any difference, a scan found a
    word in less than 5% of all cases.
    """
    from scipy import special

    word, unit, owner, count = uses.entries()
    in_a = owner == group
    totals = np.stack([uses.totals[group], uses.totals.sum(0) - uses.totals[group]], 1)
    degrees = contrast(np.zeros_like(totals), totals, np.array([1.0, -1.0]), 0).degrees
    if np.isnan(degrees) or not len(word):
        none, no_places = np.zeros(0), np.zeros(0, np.int64)
        return Compared(no_places, Rates(none, none, none, degrees), none, none, none, no_places)
    inside = (np.where(in_a, count, 0.0), np.where(in_a, 0.0, count))
    sides = [_Side(word, unit, one, totals[:, number]) for number, one in enumerate(inside)]
    first = np.flatnonzero(np.append(True, (word[1:] != word[:-1]) | (unit[1:] != unit[:-1])))
    units = np.bincount(word[first], minlength=uses.words)
    tested = np.flatnonzero(sum(np.bincount(word, side.counts, uses.words) for side in sides) >= LEAST_USES)
    a, b = (side.of(tested, uses.words) for side in sides)
    together = _products(sides[0], sides[1], first, tested, uses.words)
    seen = a.uses / a.n**2 + b.uses / b.n**2
    own_a, own_b, cross = _variances(a, b, together)
    clustered = np.maximum(own_a / a.n**2 + own_b / b.n**2 - 2 * cross / (a.n * b.n), 0)
    design = np.maximum(clustered / seen, 1)
    expected = (a.uses + b.uses) / (a.n * b.n) * design
    z = (a.uses / a.n - b.uses / b.n) / np.sqrt(np.maximum(clustered, expected))
    known = rates((a.uses, b.uses), (a.n, b.n), (own_a, own_b), cross, degrees)
    found = a.uses + b.uses
    of_tails = degrees if (totals > 0).sum(0).min() < FEW else np.inf
    edge = float(special.stdtrit(of_tails, 1 - LEVEL / 2 / max(len(tested), 1)))
    least = detectable(found / design, a.n / (a.n + b.n), edge, MARGIN)
    return Compared(tested, known, least, 2 * special.stdtr(of_tails, -np.abs(z)), found, units[tested])


class _Side:
    """The uses of words in the sentences of one side of a comparison: for each entry its word, its unit, and the number
    of uses. `totals` is the number of all words of each unit.

    A unit's numbers are divided by 1 minus the unit's share of the side's words, as CR3 does.
    """

    def __init__(self, word: Places, unit: Places, counts: Numbers, totals: Numbers) -> None:
        self.word, self.unit, self.counts, self.n = word, unit, counts, float(totals.sum())
        factor = 1 / np.maximum(1 - totals / self.n, 1e-9)
        self.scaled, self.totals = counts * factor[unit], totals * factor

    def of(self, tested: Places, words: int) -> _Sums:
        """The sums for the tested words."""
        uses, squares, mixed = (
            np.bincount(self.word, one, words)[tested].astype(float)
            for one in (self.counts, self.scaled**2, self.scaled * self.totals[self.unit])
        )
        return _Sums(self.n, uses, squares, mixed, float(self.totals @ self.totals))


@dataclass(frozen=True)
class _Sums:
    """Sums over units u, for each word: n = Σ n_u, Σ y_u, Σ y_u², Σ y_u·n_u and Σ n_u². A unit has n_u words, and uses
    the word y_u times. The sums of squares and products are over the scaled numbers of `_Side`.
    """

    n: float
    uses: Numbers
    squares: Numbers
    mixed: Numbers
    totals: float


def _products(a: _Side, b: _Side, first: Places, tested: Places, words: int) -> tuple[Numbers, Numbers, Numbers, float]:
    """Σ y_au·y_bu, Σ y_au·n_bu, Σ n_au·y_bu for each word, and Σ n_au·n_bu. y and n are the scaled numbers of `_Side`.
    `first` are the indexes of the entries at which the word or the unit changes.
    """
    of_a, of_b = (np.add.reduceat(side.scaled, first) for side in (a, b))
    products = (of_a * of_b, of_a * b.totals[a.unit[first]], a.totals[a.unit[first]] * of_b)
    sums = [np.bincount(a.word[first], one, words)[tested].astype(float) for one in products]
    return sums[0], sums[1], sums[2], float(a.totals @ b.totals)


def _variances(
    a: _Sums, b: _Sums, together: tuple[Numbers, Numbers, Numbers, float]
) -> tuple[Numbers, Numbers, Numbers]:
    """For each word: Σ_u r_au², Σ_u r_bu² and Σ_u r_au·r_bu, with r_u = y_u − p·n_u and p = Σ y_u / n of a side."""
    p_a, p_b = a.uses / a.n, b.uses / b.n
    own = [np.maximum(one.squares - 2 * p * one.mixed + p**2 * one.totals, 0) for one, p in ((a, p_a), (b, p_b))]
    return own[0], own[1], together[0] - p_b * together[1] - p_a * together[2] + p_a * p_b * together[3]


def association(uses: Uses, spelled: dict[int, str]) -> tuple[list[Measurement], dict[str, dict[str, float]]]:
    """Scan all words for each group. Returns (measurements, figures of each scan). There is one measurement for each
    scan, and one for each word that was found, but for at most `TOP` words of each group and direction. `spelled` has
    the word of each place in the vocabulary.
    """
    measured: list[Measurement] = []
    figures: dict[str, dict[str, float]] = {}
    scanned = [(group, compared(uses, group)) for group in uses.dimension.compared()]
    lengths = [len(scan.p) for _, scan in scanned]
    adjusted = benjamini_hochberg(np.concatenate([scan.p for _, scan in scanned]) if scanned else np.zeros(0))
    for (group, scan), corrected in zip(scanned, np.split(adjusted, np.cumsum(lengths)[:-1]), strict=True):
        found = np.flatnonzero((corrected < LEVEL) & (np.abs(scan.effect) >= MARGIN))
        order = found[np.lexsort((scan.word[found], scan.effect[found]))]
        top = [*order[scan.effect[order] > 0][::-1][:TOP], *order[scan.effect[order] < 0][:TOP]]
        subject = f"{uses.dimension.name}: {uses.dimension.groups[group]}"
        measured.append(_whole(uses, group, scan, len(found), subject))
        measured += [scan.measured(at, corrected, subject, spelled[int(scan.word[at])]) for at in map(int, top)]
        weight = scan.uses / max(scan.uses.sum(), 1)
        figures[f"association of {subject}"] = {
            "words_tested": len(scan.p),
            "words_found": len(found),
            "mean_absolute_log2_odds_ratio": float((weight * np.abs(scan.effect)).sum()),
        }
    return measured, figures


def _whole(uses: Uses, group: int, scan: Compared, found: int, subject: str) -> Measurement:
    """One measurement for the whole scan. The outcome is `absent` if the 90% intervals of all words lie within the
    margin.
    """
    tested = len(scan.p)
    note = f"{found} of {tested} words with at least {LEAST_USES} uses"
    outcome: Outcome = "found" if found else "inconclusive"
    if not tested:
        outcome = "not measurable"
        note = f"no word has {LEAST_USES} uses in sentences with one of the groups, or one side has less than 2 units"
    elif not found and _within(scan.rates):
        outcome = "absent"
    return Measurement(
        name="association",
        subject=subject,
        about="words that occur at least twice as often, or half as often, in sentences with the group",
        unit="log2 of the ratio of odds",
        outcome=outcome,
        n=int(uses.totals.sum()),
        clusters=int((uses.totals.sum(0) > 0).sum()),
        family=f"association: {uses.dimension.name}",
        detectable=_median(scan.detectable),
        margin=MARGIN,
        note=note,
    )
