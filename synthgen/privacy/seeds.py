"""Reads the seeds of a corpus. Says whether they are still the seeds of the run, and which of them are private."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from synthgen.auditing.result import Subject
from synthgen.errors import RecipeError, SynthgenError
from synthgen.recipe import SeedSource
from synthgen.recipe.privacy import PrivacySection
from synthgen.seeds import Seeds, load_seeds, read_rows
from synthgen.seeds.changes import RowHashes, changed_rows
from synthgen.seeds.store import Seed

T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """What is known about the seeds. `seeds` is None if they cannot be read. `why_not` is "" if exactly the seeds of
    the run could be read. Otherwise it says why they are not known. `private` has the names of the recipe's private
    sources. `of_rows` has those names in `private` that the corpus names as sources of its rows.
    """

    seeds: Seeds | None
    why_not: str
    private: frozenset[str] = frozenset()
    of_rows: frozenset[str] = frozenset()


def known_seeds(subject: Subject) -> Known:
    """Read the seeds that the recipe of the audit names, and compare them with the seeds of the run. If the rows come
    from a data set that was made elsewhere, no seeds are read, because the recipe's `seeds` then name this data set.
    """
    stated = subject.recipe.seeds if subject.recipe else ()
    private = frozenset(one.source for one in stated if one.private)
    named = {one["role"]: set[str]() for one in subject.manifest["sources"]}
    for one in subject.manifest["sources"]:
        named[one["role"]].add(one["source"])
    of_rows = private & (named.get("seed", set()) | named.get("dataset", set()))
    if subject.recipe is None:
        return Known(None, "no recipe names the seeds of these rows")
    if named.get("dataset"):
        return Known(None, "the rows come from a data set, which does not name the seeds of its rows", private, of_rows)
    try:
        seeds = load_seeds(stated, subject.recipe.split, lambda _: "seed")
    except (SynthgenError, OSError) as error:
        return Known(None, f"the seeds cannot be read: {error}", private, of_rows)
    before = RowHashes.read(subject.corpus.parent / "generated")
    if before is None:
        return Known(seeds, "the folder of the run does not say which seeds it was made from", private, of_rows)
    if changed := changed_rows(before, seeds.rows):
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return Known(seeds, f"the seeds have changed since the run: {changed[0]}{more}", private, of_rows)
    return Known(seeds, "", private, of_rows)


@dataclass(frozen=True)
class PrivateText:
    """A text of a private source. `source` is the name of the source. `seed_id` is the id of the seed that holds the
    text, or "" if no seed holds it.
    """

    source: str
    seed_id: str
    text: str


def private_texts(known: Known, section: PrivacySection) -> Iterator[PrivateText]:
    """All texts of the private seeds, and of the files in `private`. Raises RecipeError when a file of `private` cannot
    be read.
    """
    for seed in known.seeds or ():
        if seed.source.private:
            yield from (PrivateText(seed.source.source, seed.id, text) for text in texts_of(seed))
    yield from texts_of_files(section.private)


def texts_of_files(paths: Iterable[str]) -> Iterator[PrivateText]:
    """All texts in the rows of private files or folders. Raises RecipeError when one of them cannot be read."""
    for path in paths:
        name = Path(path).name
        try:
            for _, row in read_rows(SeedSource(path=path, license="unknown", source=name)):
                yield from (PrivateText(name, "", text) for text in strings(row))
        except RecipeError as error:
            raise RecipeError(
                f"audit.privacy.private: {error.message}", "correct this file, or the key audit.privacy.private"
            ) from None


def parts_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Divide items into lists of at most `size`."""
    rest = iter(items)
    while part := [*islice(rest, size)]:
        yield part


def texts_of(seed: Seed) -> list[str]:
    """All texts of a seed."""
    return [*strings(seed.fields), *(seed.reference or ())]


def strings(value: object) -> Iterator[str]:
    """All texts in a JSON value. Numbers in it are returned as texts too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from strings(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
