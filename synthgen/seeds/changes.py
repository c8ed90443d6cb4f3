"""Finds the rows of seed files that changed since a run started.

For each seed, a run stores a hash of the seed's id and a hash of its content, 16 bytes in all, in a hidden file beside
`inputs.json`. If there are more than `LIMIT` seeds, the run stores only the number of rows of each seed file.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from synthgen import durable
from synthgen.files import is_regular, parse_json

FILE = ".seed-rows"
LIMIT = 100_000


@dataclass(frozen=True)
class FileRows:
    """One seed file: `count` is the number of its rows, and `hashes` holds for each row (hash of the id, hash of the
    content). `hashes` is None when no hashes are stored.
    """

    count: int
    hashes: list[tuple[int, int]] | None


class RowHashes:
    """The number of rows of each seed file, and hashes of the ids and contents of the first `LIMIT` rows."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.ids = array("Q")
        self.contents = array("Q")

    def add(self, file: str, seed_id: bytes, content: bytes) -> None:
        """Add one row. `seed_id` is empty when the seed's id is only a hash of the row. All rows of one file must be
        added before the rows of the next file.
        """
        self.counts[file] = self.counts.get(file, 0) + 1
        if len(self.ids) < LIMIT:
            self.ids.append(_hash(seed_id))
            self.contents.append(_hash(content))

    def write(self, folder: Path) -> None:
        """Write the numbers and hashes into `folder`, so that `changed_rows` can compare them later."""
        complete = sum(self.counts.values()) <= LIMIT
        head = json.dumps({"counts": self.counts, "complete": complete}).encode()
        body = self.ids.tobytes() + self.contents.tobytes() if complete else b""
        durable.write_bytes(folder / FILE, head + b"\n" + body)

    @classmethod
    def read(cls, folder: Path) -> RowHashes | None:
        """Read the file that `write` wrote. Returns None when the file is missing or cannot be read."""
        if not is_regular(folder / FILE):
            return None
        try:
            head, _, body = (folder / FILE).read_bytes().partition(b"\n")
            hashes = cls()
            about = parse_json(head.decode())
            hashes.counts = {str(name): int(count) for name, count in about["counts"].items()}  # type: ignore[index]
            hashes.ids.frombytes(body[: len(body) // 2])
            hashes.contents.frombytes(body[len(body) // 2 :])
        except (OSError, ValueError, LookupError, AttributeError, TypeError, OverflowError):
            return None
        return hashes

    def of_files(self) -> dict[str, FileRows]:
        """For each file, by its name: the number of its rows and their hashes."""
        complete = len(self.ids) == sum(self.counts.values()) == len(self.contents)
        found, start = {}, 0
        for name, count in self.counts.items():
            rows = zip(self.ids[start : start + count], self.contents[start : start + count], strict=True)
            found[name] = FileRows(count, list(rows) if complete else None)
            start += count
        return found


def changed_rows(before: RowHashes, now: RowHashes) -> list[str]:
    """One line of text for each seed file that has changed, such as "q.csv: 1 row added, 2 rows changed"."""
    old, new = before.of_files(), now.of_files()
    lines = [f"{name}: no longer among the seeds" for name in old if name not in new]
    for name, rows in new.items():
        if name not in old:
            lines.append(f"{name}: new among the seeds")
        elif parts := _difference(old[name], rows):
            lines.append(f"{name}: {parts}")
    return lines


def _difference(old: FileRows, new: FileRows) -> str:
    if old.hashes is None or new.hashes is None:
        return "" if old.count == new.count else f"{old.count:,} rows became {new.count:,}"
    added, removed = Counter(new.hashes) - Counter(old.hashes), Counter(old.hashes) - Counter(new.hashes)
    ids_added, ids_removed = (Counter(seed_id for seed_id, _ in rows.elements()) for rows in (added, removed))
    changed = (ids_added & ids_removed).total()
    parts = (
        (added.total() - changed, "added"),
        (removed.total() - changed, "removed"),
        (changed, "changed"),
    )
    told = [f"{count:,} row{'s' if count != 1 else ''} {what}" for count, what in parts if count]
    return ", ".join(told) or ("" if old == new else "the order of the rows changed")


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
