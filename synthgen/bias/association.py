"""Association (C2): words that occur more often in sentences with one group than in those with the others.

Only sentences that mention exactly one group of a dimension count, and not the words that name its groups. The effect
is the logarithm to the base 2 of the ratio of odds, with a Dirichlet prior in proportion to the words' overall shares:
Monroe, Colaresi and Quinn, "Fightin' Words", Political Analysis 16 (2008). A word that occurs with one group alone
counts like any other.

The test does not treat every use as an observation, because a unit may repeat a word. Its variance under the hypothesis
of no difference is the larger one of Σ_u s_u² and of the variance of independent uses times the design effect. s_u is
the unit's part of the difference of the two shares. So a word of one unit has |z| ≤ 1, whatever its number of uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from synthgen.auditing.result import Measurement, Outcome
from synthgen.auditing.statistics import LEVEL, benjamini_hochberg
from synthgen.bias.groups import Dimension
from synthgen.bias.words import Hashes, Places, Words, or_of

PRIOR = 500.0
"""The prior is as if each side had so many more words."""
LEAST_USES = 10
"""Words that occur less often near a group of the dimension are not tested."""
MARGIN = 1.0
"""Twice the odds."""
TOP = 10
"""Words that a report names for each group and direction."""
_NORMAL = {0.9: 1.6448536, 0.95: 1.9599640, "power": 0.8416212}
_HELD = 1 << 24  # entries that are held before equal ones are added up

Numbers = npt.NDArray[np.float64]


@dataclass
class Uses:
    """How often words occur in sentences with one group of a dimension.

    An entry is 64 bits: the word's place in the vocabulary, the unit, the group, and the number of uses, from the
    highest to the lowest bits. `totals` (groups, units) is the number of all words of such sentences.
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
        """(word, unit, group, uses) of all entries, in this order."""
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


def compared(uses: Uses, group: int) -> Compared:
    """Compare the sentences with `group` with those of the other groups of its dimension."""
    word, unit, owner, count = uses.entries()
    in_a = owner == group
    n_a, n_b = uses.totals[group].sum(), uses.totals.sum() - uses.totals[group].sum()
    empty = np.zeros(0)
    if not n_a or not n_b or not len(word):
        return Compared(np.zeros(0, np.int64), *[empty] * 5)
    y_a = np.bincount(word, count * in_a, uses.words)
    y_b = np.bincount(word, count * ~in_a, uses.words)
    signed = np.where(in_a, count / n_a, -count / n_b)
    first = np.flatnonzero(np.append(True, (word[1:] != word[:-1]) | (unit[1:] != unit[:-1])))
    part = np.add.reduceat(signed, first)
    balance = uses.totals[group] / n_a - (uses.totals.sum(0) - uses.totals[group]) / n_b
    share = (y_a + y_b) / (n_a + n_b)
    squares = np.bincount(word[first], part**2, uses.words)
    mixed = np.bincount(word[first], part * balance[unit[first]], uses.words)
    clustered = squares - 2 * share * mixed + share**2 * (balance**2).sum()
    seen = y_a / n_a**2 + y_b / n_b**2
    expected = (y_a + y_b) / (n_a * n_b)
    tested = np.flatnonzero(y_a + y_b >= LEAST_USES)
    y_a, y_b, share, clustered, seen, expected = (one[tested] for one in (y_a, y_b, share, clustered, seen, expected))
    design = np.maximum(clustered / seen, 1)
    variance = np.maximum(clustered, design * expected)
    z = (y_a / n_a - y_b / n_b) / np.sqrt(variance)
    alpha = PRIOR * share
    odds_a = (y_a + alpha) / (n_a + PRIOR - y_a - alpha)
    odds_b = (y_b + alpha) / (n_b + PRIOR - y_b - alpha)
    error = np.sqrt(design * (1 / (y_a + alpha) + 1 / (y_b + alpha))) / np.log(2)
    units = np.bincount(word[first], minlength=uses.words)[tested]
    return Compared(tested, np.log2(odds_a / odds_b), error, _tails(z), y_a + y_b, units)


def _tails(z: Numbers) -> Numbers:
    """Two-sided p-values of the normal distribution."""
    from scipy import special

    return np.asarray(2 * special.ndtr(-np.abs(z)))


def association(uses: Uses, spelled: dict[int, str]) -> tuple[list[Measurement], dict[str, dict[str, float]]]:
    """Scan all words for each group. Returns (the words that were found, at most `TOP` for each group and direction,
    and a measurement of each scan; figures of each scan). `spelled` has the word of each place in the vocabulary.
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
        measured += [_word(scan, int(place), corrected, subject, spelled) for place in top]
        weight = scan.uses / max(scan.uses.sum(), 1)
        figures[f"association of {subject}"] = {
            "words_tested": len(scan.p),
            "words_found": len(found),
            "mean_absolute_log2_odds_ratio": float((weight * np.abs(scan.effect)).sum()),
        }
    return measured, figures


def _word(scan: Compared, place: int, corrected: Numbers, subject: str, spelled: dict[int, str]) -> Measurement:
    effect, error = float(scan.effect[place]), float(scan.error[place])
    return Measurement(
        name="association",
        subject=f"{subject}, '{spelled[int(scan.word[place])]}'",
        about="how much more often the word occurs in sentences with the group than in those with the other groups",
        unit="log2 of the ratio of odds",
        outcome="found",
        n=int(scan.uses[place]),
        clusters=int(scan.units[place]),
        estimate=effect,
        low=effect - _NORMAL[0.95] * error,
        high=effect + _NORMAL[0.95] * error,
        p=float(scan.p[place]),
        corrected_p=float(corrected[place]),
        family=f"association: {subject.split(':')[0]}",
        detectable=max(_NORMAL[0.95] * error, MARGIN) + _NORMAL["power"] * error,
        margin=MARGIN,
    )


def _whole(uses: Uses, group: int, scan: Compared, found: int, subject: str) -> Measurement:
    """What the scan says as a whole. It is absent if the 90% intervals of all words lie within the margin."""
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
        detectable=float(np.median(np.maximum(_NORMAL[0.95] * scan.error, MARGIN) + _NORMAL["power"] * scan.error))
        if tested
        else None,
        margin=MARGIN,
        note=note,
    )
