"""Tombstones: what `synthgen remove` has taken out of a run. Generation reads the tombstones, and never makes the
removed rows again.

    removed = read_removed(run)          # from RUN/removed.jsonl; empty if nothing was removed
    removed.has_seed("q7", "faq.jsonl")  # whether this seed was removed

A tombstone holds ids, hashes, counts and a date, but no text of a row. During a removal, the file `RUN/.removing.json`
exists. If the process is killed, the file stays, and `refuse_half` then refuses every other use of the run until the
removal is complete.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from pydantic import TypeAdapter, ValidationError

from synthgen import durable
from synthgen.errors import CorpusError
from synthgen.files import is_regular, parse_json, read_object, read_text
from synthgen.records import Source

FILE = "removed.jsonl"
JOURNAL = ".removing.json"
MARK = "> **Out of date.**"

_RESTORE = "restore the file: without it, generation would make again what was removed"
_COPY = re.compile(r"(.+)#\d+", re.DOTALL)


@dataclass(frozen=True)
class Tombstone:
    """One removal. `name` is the id that the user gave, and `date` is the day in UTC.

    `sources`, `seeds` and `rows` are ids. A row is removed if it has one of the `sources`, was made from one of the
    `seeds`, or is one of the `rows`. `counts` are the numbers of seeds, rows, failures and cached replies that were
    removed. `corpora` are the hashes of the corpora that held the rows: a student that was trained on one of these
    corpora is out of date. `students` are the folders of the students that were found, relative to the run.
    """

    name: str
    date: str
    sources: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    corpora: tuple[str, ...] = ()
    students: tuple[str, ...] = ()

    def text(self) -> str:
        """Text for people, such as "1 seed left out: 'q7' was removed on 2026-11-30"."""
        count = self.counts.get("seeds", 0)
        return f"{count:,} seed{'' if count == 1 else 's'} left out: '{self.name}' was removed on {self.date}"

    def marked(self, card: str) -> str:
        """The card of a student whose corpus had the removed rows, with a line that says so. The line is added once."""
        mark = (
            f"{MARK} This student was trained on a corpus from which '{self.name}' was removed on {self.date}. "
            "Train it again before you use or share it."
        )
        head, title, rest = card.partition("\n# ")
        return card if mark in card else f"{head}\n{mark}\n{title}{rest}"

    def to_dict(self) -> dict[str, object]:
        """A line of removed.jsonl."""
        return asdict(self)


@dataclass(frozen=True)
class Removed:
    """All tombstones of a run. The object is false if there is no tombstone."""

    tombstones: tuple[Tombstone, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tombstones)

    @cached_property
    def sources(self) -> frozenset[str]:
        """The ids of removed sources."""
        return frozenset(one for tombstone in self.tombstones for one in tombstone.sources)

    @cached_property
    def seeds(self) -> frozenset[str]:
        """The ids of removed seeds."""
        return frozenset(one for tombstone in self.tombstones for one in tombstone.seeds)

    @cached_property
    def rows(self) -> frozenset[str]:
        """The ids of removed rows, without rows that a removed source or seed already covers."""
        return frozenset(one for tombstone in self.tombstones for one in tombstone.rows)

    @cached_property
    def corpora(self) -> dict[str, Tombstone]:
        """The hash of each corpus that held removed rows, with the latest tombstone about it."""
        return {one: tombstone for tombstone in self.tombstones for one in tombstone.corpora}

    def has_seed(self, seed_id: str, source: str | None = None) -> bool:
        """Whether the seed, or the whole source `source` that it comes from, was removed. A copy `ID#2` of a seed is
        removed with the seed.
        """
        if source in self.sources or seed_id in self.seeds:
            return True
        copy = _COPY.fullmatch(seed_id) if self.seeds else None
        return copy is not None and copy[1] in self.seeds

    def has_source(self, id: str, role: str) -> bool:
        """Whether a row with this source was removed. The id of an example is "SOURCE#SEED"."""
        if id in self.sources:
            return True
        if role != "few_shot" or "#" not in id:
            return False
        return any(id.startswith(f"{one}#") for one in self.sources)

    def has_row(self, row_id: str, seed_id: str, sources: Iterable[Source], parents: Iterable[str] = ()) -> bool:
        """Whether a row was removed, or was made from something that was removed."""
        if row_id in self.rows or self.has_seed(seed_id) or any(one in self.rows for one in parents):
            return True
        return bool(self.sources) and any(self.has_source(one["id"], one["role"]) for one in sources)


NOTHING = Removed()


def read_removed(run: Path) -> Removed:
    """The tombstones of a run. Raises CorpusError when removed.jsonl is damaged."""
    path = run / FILE
    if not path.exists():
        return NOTHING
    found = []
    for number, line in enumerate(read_text(path, _RESTORE).splitlines(), 1):
        try:
            found.append(tombstone_of(parse_json(line)))
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise CorpusError(f"{path}, line {number}: this is not a tombstone ({reason})", _RESTORE) from None
    return Removed(tuple(found))


def tombstone_of(value: object) -> Tombstone:
    """The tombstone in a JSON value. Raises ValueError."""
    try:
        return _TOMBSTONE.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"'{'.'.join(map(str, first['loc']))}': {first['msg']}") from None


def write_tombstone(run: Path, tombstone: Tombstone) -> None:
    """Add a tombstone to RUN/removed.jsonl, unless the file already has it."""
    known = read_removed(run).tombstones
    if tombstone not in known:
        lines = [json.dumps(one.to_dict(), ensure_ascii=False) + "\n" for one in (*known, tombstone)]
        durable.write_bytes(run / FILE, "".join(lines).encode("utf-8", "backslashreplace"))


class Journal(TypedDict):
    """The journal of a removal: what the user gave and what it means, the tombstone, the manifest that the corpus had,
    and the seeds of all rows that were to be removed.
    """

    name: object
    what: object
    tombstone: object
    manifest: object
    seeds: list[str]


def read_journal(run: Path) -> Journal | None:
    """The journal of a removal that was interrupted, or None. Raises CorpusError when the journal is damaged."""
    if not is_regular(run / JOURNAL):
        return None
    again = "delete the file, give `synthgen remove` again, and then `synthgen generate` with --repair"
    journal = read_object(run / JOURNAL, again)
    try:
        tombstone_of(journal["tombstone"])
        seeds = journal.get("seeds")  # journals of older versions have no seeds
        return {
            "name": journal["name"],
            "what": journal["what"],
            "tombstone": journal["tombstone"],
            "manifest": journal["manifest"],
            "seeds": [str(one) for one in seeds] if isinstance(seeds, list) else [],
        }
    except (KeyError, ValueError):
        raise CorpusError(f"{run / JOURNAL} is damaged: it is not the journal of a removal", again) from None


def refuse_half(run: Path) -> None:
    """Raise CorpusError when a removal from this run was interrupted and has not been completed."""
    if (run / JOURNAL).exists():
        journal = read_journal(run)
        name = journal["name"] if journal else "ID"
        raise CorpusError(
            f"a removal from {run} was interrupted, so its files do not belong together yet", completing(run, name)
        )


def completing(run: Path, name: object) -> str:
    """The hint that names the command which completes an interrupted removal."""
    return f"complete it: `synthgen remove {run} --source {shlex.quote(str(name))}`"


def outdated(run: Path, student: Path) -> Tombstone | None:
    """The tombstone about the corpus that a student of this run was trained on. None if nothing was removed from this
    corpus.
    """
    removed = read_removed(run)
    path = student / "inputs.json"
    if not removed or not is_regular(path):
        return None
    return removed.corpora.get(str(read_object(path, "train again with --fresh").get("curated_sha256")))


def notices(run: Path) -> list[str]:
    """Text for people: a line for each removal from a run, and a line if the student's corpus held removed rows."""
    lines = []
    for one in read_removed(run).tombstones:
        count = one.counts.get("rows", 0)
        lines.append(f"removed on {one.date}: '{one.name}' ({count:,} row{'' if count == 1 else 's'})")
    old = outdated(run, run / "student")
    return [*lines, f"the student is out of date: its corpus held '{old.name}'"] if old else lines


_TOMBSTONE = TypeAdapter(Tombstone)
