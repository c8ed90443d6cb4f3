"""Groups of people and the words that name them: data/groups.yaml, and the lists of the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import yaml

from synthgen.bias.words import Hashes, Words, hashes_of
from synthgen.errors import RecipeError, nearest
from synthgen.recipe import shipped
from synthgen.recipe.bias import BiasSection

MOST = 64  # maximum number of groups, because each group has a bit of a mask


@dataclass(frozen=True)
class Dimension:
    """One dimension, such as gender, with its groups. In a mask, group i has the bit 1 << (first + i)."""

    name: str
    groups: tuple[str, ...]
    first: int

    @property
    def mask(self) -> np.uint64:
        """The bits of all groups."""
        return np.uint64(sum(1 << (self.first + number) for number in range(len(self.groups))))

    def has(self, masks: Hashes, group: int) -> npt.NDArray[np.bool_]:
        """Which texts mention a group."""
        return masks >> np.uint64(self.first + group) & np.uint64(1) != 0

    def only(self, masks: Hashes) -> npt.NDArray[np.int64]:
        """The group of each text that mentions exactly one group of this dimension, and -1 for the other texts."""
        found = np.full(len(masks), -1)
        inside = masks & self.mask
        for number in range(len(self.groups)):
            found[inside == np.uint64(1 << (self.first + number))] = number
        return found

    def compared(self) -> range:
        """The groups that are compared with the other groups. Of two groups, only the first is compared, because the
        second would give the same effect with the opposite sign.
        """
        return range(1 if len(self.groups) == 2 else len(self.groups))


class Lexicon:
    """The words of all groups, for `masks`."""

    def __init__(self, lists: Mapping[str, Mapping[str, tuple[str, ...]]]) -> None:
        self.dimensions: list[Dimension] = []
        any_case: dict[int, int] = {}
        capital: dict[int, int] = {}
        phrases: dict[tuple[tuple[int, ...], bool], int] = {}
        known_hashes = hashes_of([one for groups in lists.values() for entries in groups.values() for one in entries])
        bit = 0
        for name, groups in lists.items():
            self.dimensions.append(Dimension(name, tuple(groups), bit))
            for entries in groups.values():
                for entry in entries:
                    hashes, exact = known_hashes[entry], entry[:1] != entry[:1].lower()
                    if len(hashes) > 1:
                        phrases[hashes, exact] = phrases.get((hashes, exact), 0) | 1 << bit
                    elif hashes:
                        table = capital if exact else any_case
                        table[hashes[0]] = table.get(hashes[0], 0) | 1 << bit
                bit += 1
        if bit > MOST:
            raise RecipeError(
                f"audit.bias: {bit} groups are more than the maximum of {MOST}", "name fewer `dimensions`"
            )
        begins = {hashes[0] for hashes, _ in phrases}
        known = sorted({*any_case, *capital, *begins})
        self._known = np.array([*known, 0], np.uint64)  # the last entry stands for all other words
        self._any = np.array([*(any_case.get(one, 0) for one in known), 0], np.uint64)
        self._capital = np.array([*(capital.get(one, 0) for one in known), 0], np.uint64)
        self._begins = np.array([*(one in begins for one in known), False])
        self._phrases = [
            (np.array(hashes, np.uint64), exact, np.uint64(mask)) for (hashes, exact), mask in phrases.items()
        ]

    def masks(self, words: Words) -> Hashes:
        """For each word: the bits of the groups that the word names, alone or as a part of a phrase."""
        place = np.searchsorted(self._known[:-1], words.hashes)
        place[self._known[place] != words.hashes] = len(self._known) - 1
        masks = self._any[place] | np.where(words.capital, self._capital[place], np.uint64(0))
        starts = np.flatnonzero(self._begins[place])
        for hashes, exact, mask in self._phrases if len(starts) else ():
            found = starts[words.hashes[starts] == hashes[0]]
            if exact:
                found = found[words.capital[found]]
            for step in range(1, len(hashes)):
                found = found[found + step < len(words.hashes)]
                same = words.sentences[found + step] == words.sentences[found]
                found = found[same & (words.hashes[found + step] == hashes[step])]
            for step in range(len(hashes)):
                masks[found + step] |= mask
        return masks


@lru_cache(maxsize=1)
def _shipped() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """data/groups.yaml."""
    found = yaml.safe_load((shipped("data") / "groups.yaml").read_text(encoding="utf-8"))
    return {name: {group: tuple(entries) for group, entries in lists.items()} for name, lists in found.items()}


def lexicon(section: BiasSection) -> Lexicon:
    """The shipped dimensions that the section names (all if it names none), and the section's own dimensions. If the
    section has words for a shipped group, they are added to this group. Raises RecipeError for an unknown dimension, a
    dimension with one group, a word in two groups of a dimension, and targets that do not name exactly the groups of a
    dimension that is compared.
    """
    ours = _shipped()
    for name in section.dimensions:
        if name not in ours and name not in section.groups:
            raise RecipeError(
                f"audit.bias.dimensions: there is no dimension '{name}'{nearest(name, [*ours, *section.groups])}",
                "name a dimension of data/groups.yaml, or give its words under audit.bias.groups",
            )
    lists: dict[str, dict[str, tuple[str, ...]]] = {}
    for name in dict.fromkeys([*(section.dimensions or ours), *section.groups]):
        groups = {**ours.get(name, {}), **{group: () for group in section.groups.get(name, {})}}
        lists[name] = {g: (*ours.get(name, {}).get(g, ()), *section.groups.get(name, {}).get(g, ())) for g in groups}
        _check(name, lists[name])
    for name, target in section.targets.items():
        if name not in lists:
            raise RecipeError(
                f"audit.bias.targets: no dimension '{name}' is compared{nearest(name, lists)}",
                "name a dimension that audit.bias compares",
            )
        if set(target) != set(lists[name]):
            raise RecipeError(
                f"audit.bias.targets.{name} must name all groups of the dimension",
                f"the groups are {', '.join(lists[name])}",
            )
    return Lexicon(lists)


def _check(name: str, groups: Mapping[str, tuple[str, ...]]) -> None:
    if len(groups) < 2:
        raise RecipeError(
            f"audit.bias.groups.{name} needs at least two groups",
            "add a second group, with which the first is compared",
        )
    owner: dict[str, str] = {}
    for group, entries in groups.items():
        for entry in entries:
            if owner.setdefault(entry.lower(), group) != group:
                raise RecipeError(
                    f"audit.bias.groups.{name}: '{entry}' is in the groups '{owner[entry.lower()]}' and '{group}'",
                    "leave it in one of them",
                )
