"""Association (C2): words that occur more often in sentences that mention one group than in sentences that mention
other groups.

Only sentences that mention exactly one group of a dimension count. The words that name the groups of the dimension do
not count. The effect is the logarithm to the base 2 of the ratio of odds, with a Dirichlet prior in proportion to the
words' overall shares: Monroe, Colaresi and Quinn, "Fightin' Words", Political Analysis 16 (2008). A word that occurs
with only one group counts like any other word.

The test does not treat every use as an observation, because a unit may repeat a word. The variance of the difference of
the two shares is Σ_u s_u², where s_u is a unit's part of the difference, with the correction CR2 (see
`synthgen.auditing.statistics`). So a word that only one unit uses has |z| ≤ 1, even if the unit uses it very often. The
variance has a lower bound: the variance of independent uses of a word that is equally likely on both sides, times the
design effect. Without this bound, a rare word that only one side uses would look like a certain difference.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from synthgen.auditing.result import Measurement, Outcome
from synthgen.auditing.statistics import LEVEL, benjamini_hochberg
from synthgen.bias.groups import Dimension
from synthgen.bias.words import Hashes, Places, Words, or_of

PRIOR = 100.0
"""The prior counts as this number of additional words on each side."""
LEAST_USES = 10
"""A word is tested if it occurs at least this often in sentences that mention a group of the dimension."""
MARGIN = 1.0
"""Twice the odds."""
TOP = 10
"""Maximum number of words that a report names for each group and direction."""
_NORMAL = {0.9: 1.6448536, 0.95: 1.9599640, "power": 0.8416212}
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
    effect: Numbers
    error: Numbers
    p: Numbers
    uses: Numbers
    units: Places

    def measured(self, place: int, corrected: Numbers, subject: str, word: str) -> Measurement:
        """The measurement of the word at index `place` of the arrays. `corrected` are the corrected p-values of all
        words.
        """
        effect, error = float(self.effect[place]), float(self.error[place])
        judged: Outcome = "inconclusive"
        if corrected[place] < LEVEL and abs(effect) >= MARGIN:
            judged = "found"
        elif abs(effect) + _NORMAL[0.9] * error < MARGIN:
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
            low=effect - _NORMAL[0.95] * error,
            high=effect + _NORMAL[0.95] * error,
            p=float(self.p[place]),
            corrected_p=float(corrected[place]),
            family=f"association: {subject.split(':')[0]}",
            detectable=_detectable(self.error[place], len(self.p)),
            margin=MARGIN,
        )


def _detectable(error: Numbers, words: int) -> float:
    """The smallest effect that a scan of `words` words finds in 80 of 100 cases, if only one word has an effect. If
    `error` has entries for several words, the result is the median of the smallest effects of these words.
    """
    from scipy import special

    least = np.maximum(-special.ndtri(LEVEL / 2 / max(words, 1)) * error, MARGIN)
    return float(np.median(least + _NORMAL["power"] * error))


def compared(uses: Uses, group: int) -> Compared:
    """Compare the sentences that mention `group` with the sentences that mention other groups of its dimension."""
    word, unit, owner, count = uses.entries()
    in_a = owner == group
    sides = []
    for inside, totals in ((in_a, uses.totals[group]), (~in_a, uses.totals.sum(0) - uses.totals[group])):
        if not totals.sum() or not len(word):
            none, no_places = np.zeros(0), np.zeros(0, np.int64)
            return Compared(no_places, none, none, none, none, no_places)
        sides.append(_Side(word, unit, np.where(inside, count, 0.0), totals))
    first = np.flatnonzero(np.append(True, (word[1:] != word[:-1]) | (unit[1:] != unit[:-1])))
    units = np.bincount(word[first], minlength=uses.words)
    tested = np.flatnonzero(sum(np.bincount(word, side.counts, uses.words) for side in sides) >= LEAST_USES)
    a, b = (side.of(tested, uses.words) for side in sides)
    together = _products(sides[0], sides[1], first, tested, uses.words)
    seen = a.uses / a.n**2 + b.uses / b.n**2
    clustered = _variance(a, b, together, 1 / np.full(len(tested), a.n), 1 / np.full(len(tested), b.n))
    expected = (a.uses + b.uses) / (a.n * b.n) * np.maximum(clustered / seen, 1)
    z = (a.uses / a.n - b.uses / b.n) / np.sqrt(np.maximum(clustered, expected))
    alpha = PRIOR * (a.uses + b.uses) / (a.n + b.n)
    p_a, p_b = ((side.uses + alpha) / (side.n + PRIOR) for side in (a, b))
    odds = np.log2(p_a / (1 - p_a)) - np.log2(p_b / (1 - p_b))
    scales = [1 / (side.n + PRIOR) / p / (1 - p) for side, p in ((a, p_a), (b, p_b))]
    independent = 1 / (a.uses + alpha) + 1 / (b.uses + alpha)
    error = np.sqrt(np.maximum(_variance(a, b, together, *scales), independent)) / np.log(2)
    return Compared(tested, odds, error, _tails(z), a.uses + b.uses, units[tested])


class _Side:
    """The uses of words in the sentences of one side of a comparison: for each entry its word, its unit, and the number
    of uses. `totals` is the number of all words of each unit.

    For the variance, the attributes `scaled` and `totals` hold a unit's numbers divided by √(1 − the unit's share of
    the side's words), as in CR2.
    """

    def __init__(self, word: Places, unit: Places, counts: Numbers, totals: Numbers) -> None:
        self.word, self.unit, self.counts, self.n = word, unit, counts, float(totals.sum())
        factor = 1 / np.sqrt(np.maximum(1 - totals / self.n, 1e-9))
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


def _variance(
    a: _Sums, b: _Sums, together: tuple[Numbers, Numbers, Numbers, float], scale_a: Numbers, scale_b: Numbers
) -> Numbers:
    """Σ_u (scale_a·(y_au − p_a·n_au) − scale_b·(y_bu − p_b·n_bu))² for each word. y and n are the scaled numbers of
    `_Side`, and p is the unscaled share of the word, Σ y_u / n.
    """
    p_a, p_b = a.uses / a.n, b.uses / b.n
    own = [one.squares - 2 * p * one.mixed + p**2 * one.totals for one, p in ((a, p_a), (b, p_b))]
    cross = together[0] - p_b * together[1] - p_a * together[2] + p_a * p_b * together[3]
    return np.maximum(scale_a**2 * own[0] + scale_b**2 * own[1] - 2 * scale_a * scale_b * cross, 0)


def _tails(z: Numbers) -> Numbers:
    """Two-sided p-values of the normal distribution."""
    from scipy import special

    return np.asarray(2 * special.ndtr(-np.abs(z)))


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
        outcome, note = "not measurable", f"no word has {LEAST_USES} uses in sentences with this group or another"
    elif not found and bool((np.abs(scan.effect) + _NORMAL[0.9] * scan.error < MARGIN).all()):
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
        detectable=_detectable(scan.error, tested) if tested else None,
        margin=MARGIN,
        note=note,
    )
