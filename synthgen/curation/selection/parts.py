"""Divides a number of rows among strata."""

from __future__ import annotations

from collections.abc import Sequence


def divided(sizes: Sequence[int], number: int, shares: str) -> list[int]:
    """The part of each stratum; `sizes` are the numbers of their rows. The parts add up to `number`, or to the number
    of all rows if that is smaller. `shares` is "proportional" or "equal".
    """
    number = min(number, sum(sizes))
    if not number:
        return [0] * len(sizes)
    return _proportional(sizes, number) if shares == "proportional" else _equal(sizes, number)


def _proportional(sizes: Sequence[int], number: int) -> list[int]:
    """Divide in proportion, by largest remainders (Hamilton's method). If remainders are equal, the earlier stratum
    gets the row.
    """
    total = sum(sizes)
    found = [size * number // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: (-(sizes[place] * number % total), place))
    for place in by_remainder[: number - sum(found)]:
        found[place] += 1
    return found


def _equal(sizes: Sequence[int], number: int) -> list[int]:
    """Equal parts. If a stratum has fewer rows than its part, the other strata get the rest. If the last few rows
    cannot be divided equally, the first strata get them.
    """
    found = [0] * len(sizes)
    while number:
        open_ = [place for place, size in enumerate(sizes) if found[place] < size]
        each = max(1, number // len(open_))
        for place in open_:
            more = min(each, sizes[place] - found[place], number)
            found[place] += more
            number -= more
    return found
