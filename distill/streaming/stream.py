"""Training data as a stream: reads any row of a curated corpus by its index, with little of the corpus in memory.

    stream = open_stream(run / "curated", reader_of(tokens, own), run / "cache", Choice(max_length=512))
    order = Order(len(stream), batch_size=16, seed=0)
    stream.rows(order.rows(step))                     # list[Example]

The rows are learnable rows of one split, numbered in training order (see `distill.streaming.columns`). The tokens and
stored distributions of the rows are in segments below the cache folder. A segment is written when it is missing,
incomplete or changed, or when it was made from another corpus. Only 4 bytes a row stay in memory.
"""

from __future__ import annotations

import copy
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from distill.data import NO_ROWS, Choice, Example, in_words
from distill.streaming import distributions, tokencache
from distill.streaming.batches import Order
from distill.streaming.columns import PARTS, in_share, shards
from distill.streaming.segment import Entries, Files, Segment
from distill.streaming.tokencache import NO_TOKENS, NOTHING_TO_LEARN, Reader, Stored
from synthgen import corpus, durable, logits, outputs
from synthgen.errors import CorpusError
from synthgen.logits import LogitsMeta
from synthgen.manifest import rows_of_splits

_POLL = 0.2  # seconds between checks for a segment that another process makes


@dataclass(frozen=True)
class Shard:
    """The segments of one shard: one with its rows, and one for each teacher with the teacher's distributions."""

    name: str
    rows: Segment
    targets: tuple[Segment, ...]


class Stream(Sequence[Example]):
    """The chosen rows of a split, by index. A slice returns a list. Threads may share one instance.

    `meta` is the metadata of the stored distributions, or None when there are none. `left_out` counts the rows that
    were left out, by reason. `kept_count` is the number of rows that count as kept. `tokens` is the number of
    completion tokens in one epoch. `longest` is the length, in tokens, of the longest prompt or completion among these
    rows.
    """

    def __init__(self, folder: Path, choice: Choice, found: Sequence[Shard]) -> None:
        self.folder, self.choice = folder, choice
        self.meta: LogitsMeta | None = None
        self.left_out = {"too_long": 0, "degenerate": 0}
        self.kept_count = self.tokens = self.longest = 0
        self._files = Files()
        self._shards: list[Shard] = []
        self._chosen: list[npt.NDArray[np.uint32]] = []
        for shard in found:
            self._choose(shard)
        self._starts = np.concatenate([[0], np.cumsum([len(some) for some in self._chosen], dtype=np.int64)])
        if not len(self):
            reasons = in_words(self.left_out)
            raise CorpusError(
                f"{folder} {NO_ROWS} in split '{choice.split}'{f': {reasons}' if reasons else ''}",
                self._what_to_do(),
            )

    def _what_to_do(self) -> str:
        """The hint for an empty split."""
        if self.left_out["too_long"] or self.left_out.get("no_room_to_write"):
            return "raise train.max_length, or lower train.online.max_new_tokens"
        rows = rows_of_splits(corpus.manifest(self.folder))
        if rows and self.choice.split not in rows:
            others = ", ".join(f"{split} {count:,}" for split, count in rows.items())
            return (
                f"its rows are in other splits ({others}): questions that differ only in names and numbers "
                "get the same split; name a column with `--field group=COLUMN` (seeds.group), or change `split`"
            )
        return "see the rejected rows: `synthgen show --rejected`"

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, key: int) -> Example: ...

    @overload
    def __getitem__(self, key: slice) -> list[Example]: ...

    def __getitem__(self, key: int | slice) -> Example | list[Example]:
        """Return one row for an index, and a list of rows for a slice."""
        if isinstance(key, slice):
            return self.rows(range(*key.indices(len(self))))
        return self.rows([range(len(self))[key]])[0]

    def rows(self, numbers: Sequence[int], *, targets: bool = True) -> list[Example]:
        """The rows with these indices, in the given order. When `targets` is false, the rows have no distributions."""
        return [self._row(number, targets) for number in numbers]

    def stored(self, numbers: Sequence[int]) -> list[Stored]:
        """The rows with these indices in stored form, each with the values (probabilities or vectors) that the reader
        stored.
        """
        return [tokencache.unpack(self._blob(*self._locate(number))) for number in numbers]

    def unmerged(self, number: int) -> tuple[list[logits.Target], list[LogitsMeta]]:
        """For one row: the distributions of each teacher and their metadata, in the order of `Choice.teachers`."""
        return self._unmerged(*self._locate(number))

    def batch(self, numbers: Sequence[int], rank: int = 0, processes: int = 1) -> list[Example]:
        """The rows of one optimizer step for process `rank` of `processes`.

        Only the rows that this process computes, `numbers[rank::processes]`, have distributions. With `Choice.mask`,
        all rows have their masks, because the loss is divided by the number of unmasked tokens in the whole step.
        """
        mine = range(rank, len(numbers), processes)
        return [self._row(number, place in mine) for place, number in enumerate(numbers)]

    def completion_tokens(self, order: Order, steps: int, further: Sequence[int] = ()) -> int:
        """The number of completion tokens in the first `steps` steps. `order` may also have rows that are numbered
        after the rows of this stream. `further` has the numbers of completion tokens of these rows.
        """
        epochs, some = divmod(steps, order.steps_per_epoch)
        total = epochs * (self.tokens + sum(further))
        if some:
            learned = [self._entries(n)["learned"] for n in range(len(self._shards))]
            lengths = np.concatenate([*learned, np.array(further, np.int64)])
            total += int(lengths[order.permutation(epochs)[: some * order.batch_size]].sum(dtype=np.int64))
        return total

    def longest_row(self, new: int | None = None) -> tuple[str, int]:
        """(id, length) of the row with the most tokens in prompt and completion together. If `new` is given, every
        completion counts as `new` tokens, whatever its real length is.
        """
        lengths = np.concatenate([self._lengths(place, new) for place in range(len(self._shards))])
        number = int(lengths.argmax())
        return self.rows([number], targets=False)[0].id, int(lengths[number])

    def _lengths(self, place: int, new: int | None) -> npt.NDArray[np.int64]:
        entries = self._entries(place)
        return entries["prompt"].astype(np.int64) + (entries["completion"] if new is None else new)

    def without_targets(self) -> Stream:
        """The same rows without their distributions, for callers that only read the tokens."""
        other = copy.copy(self)
        other._shards = [replace(shard, targets=()) for shard in self._shards]
        return other

    def close(self) -> None:
        """Close the files. Later reads open the files again."""
        self._files.close()

    def _entries(self, place: int) -> Entries:
        """The entries of the chosen rows of one shard."""
        return self._files.entries(self._shards[place].rows)[self._chosen[place]]

    def _locate(self, number: int) -> tuple[Shard, int]:
        place = int(np.searchsorted(self._starts, number, "right")) - 1
        return self._shards[place], int(self._chosen[place][number - self._starts[place]])

    def _blob(self, shard: Shard, local: int) -> bytes:
        """The stored bytes of row `local` of a shard."""
        return self._files.blob(shard.rows, self._files.entries(shard.rows, local, local + 1)[0])

    def _row(self, number: int, targets: bool) -> Example:
        shard, local = self._locate(number)
        if not (shard.targets and (targets or self.choice.mask)):
            return tokencache.unpack(self._blob(shard, local)).example
        every, metas = self._unmerged(shard, local)
        target = self._merged(every, metas)[0] if targets else None
        example = tokencache.unpack(self._blob(shard, local), target).example
        return replace(example, masked=self.choice.mask(every, metas)) if self.choice.mask else example

    def _target(self, shard: Shard, local: int) -> tuple[logits.Target, LogitsMeta]:
        """The target of row `local` of a shard, and the metadata of this target. Targets of several teachers are
        merged.
        """
        return self._merged(*self._unmerged(shard, local))

    def _merged(self, targets: list[logits.Target], metas: list[LogitsMeta]) -> tuple[logits.Target, LogitsMeta]:
        return self.choice.merge(targets, metas) if self.choice.merge else (targets[0], metas[0])

    def _unmerged(self, shard: Shard, local: int) -> tuple[list[logits.Target], list[LogitsMeta]]:
        targets, metas = [], []
        for segment in shard.targets:
            blob = self._files.blob(segment, self._files.entries(segment, local, local + 1)[0])
            metas.append(segment.header["meta"])
            targets.append(logits.decode(distributions.unpack(blob, segment.header["names"]), metas[-1]))
        return targets, metas

    def _choose(self, shard: Shard) -> None:
        """Choose the rows of one shard that are used. Raises CorpusError when a row lacks tokens or logits."""
        choice, entries = self.choice, self._files.entries(shard.rows)
        self.left_out["degenerate"] += int(shard.rows.header["degenerate"])
        if shard.rows.header["rejected_side"]:
            before = self.left_out.get("rejected_side", 0)
            self.left_out["rejected_side"] = before + int(shard.rows.header["rejected_side"])
        mask = in_share(entries["place"], choice.share) if choice.split == "train" else np.ones(len(entries), bool)
        if choice.labels_alone:
            mask &= entries["kept"] > 0
        empty = np.flatnonzero(mask & (entries["state"] == NO_TOKENS))
        if len(empty):
            raise CorpusError(
                f"{self.folder}: record {self._name(shard, empty[0])} has no completion to learn",
                "leave out rows without a completion, or train a kind of student that learns from other rows",
            )
        lengths = entries["prompt"].astype(np.int64) + entries["completion"]
        long = mask & (lengths > choice.max_length)
        self._leave_out("too_long", long)
        mask &= ~long
        if choice.max_prompt is not None:
            full = mask & (np.maximum(entries["prompt"], entries["asked"]) > choice.max_prompt)
            self._leave_out("no_room_to_write", full)
            mask &= ~full
        for segment in shard.targets:
            missing = np.flatnonzero(mask & (self._files.entries(segment)["size"] == 0))
            if len(missing):
                raise CorpusError(
                    f"no logits for record {self._name(shard, missing[0])} of {self.folder}",
                    "generate with a `logits` section, or repair: `synthgen generate … --repair`; if an edit changed "
                    "the row, switch the edit off under `curate`, or set train.kd_weight to 0",
                )
        if shard.targets and mask.any():
            self._check_meta(shard, int(np.flatnonzero(mask)[0]))
        nothing = mask & (entries["state"] == NOTHING_TO_LEARN)
        if nothing.any():
            self._leave_out("nothing_to_learn", nothing)
        chosen = np.flatnonzero(mask & ~nothing).astype(np.uint32)
        if len(chosen):
            self._shards.append(shard)
            self._chosen.append(chosen)
            self._count(entries[chosen])

    def _leave_out(self, reason: str, mask: npt.NDArray[np.bool_]) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + int(mask.sum())

    def _count(self, entries: Entries) -> None:
        self.kept_count += int(entries["kept"].sum(dtype=np.int64))
        self.tokens += int(entries["learned"].sum(dtype=np.int64))
        self.longest = max(self.longest, int(entries["longest"].max()))

    def _check_meta(self, shard: Shard, local: int) -> None:
        """Raise CorpusError when the metadata of a shard's logits differs from that of earlier shards."""
        meta = self._target(shard, local)[1]
        if self.meta and meta != self.meta:
            where = f"{self.folder}: logits/{shard.targets[-1].header['file']}"
            raise CorpusError(
                f"{where}: these logits differ from those of the other shards in kind, teacher or temperature"
            )
        self.meta = meta

    def _name(self, shard: Shard, local: int) -> str:
        return tokencache.unpack(self._blob(shard, local)).example.id


def open_stream(
    folder: Path, reader: Reader, cache: Path, choice: Choice, *, tick: Callable[[int], None] = lambda shards: None
) -> Stream:
    """Open the rows of a curated corpus, tokenized by `reader`. Missing segments are made in the folder `cache`.

    `tick` is called with 1 for each shard that is ready. With several processes, only the process that writes files
    makes segments, and the others wait. Raises CorpusError when a file is damaged, when logits are missing or belong to
    other rows, or when no row is left.
    """
    sources = [] if choice.labels_alone or not choice.targets else distributions.folders(folder, choice.teachers)
    ready = []
    with _lock(cache) if durable.writes() else nullcontext():
        if durable.writes():
            durable.sweep(cache, _is_segment)
        for shard in _prepare(folder, reader, cache, sources, choice.split):
            ready.append(shard)
            tick(1)
    return Stream(folder, choice, ready)


def cache_folder(source: Path, student: Path) -> Path:
    """The folder for the segments of the curated corpus `source`, for a student in the folder `student`.

    If synthgen or distill made the corpus, the segments are in the folder `cache` beside the corpus, which all students
    of a run share. Otherwise, or when that place is not writable, the segments are in the folder `cache` in the
    student's folder.
    """
    around = source.absolute().parent
    ours = source.absolute().name in (*outputs.STAGES, "corpus")
    return (around if ours and os.access(around, os.W_OK) else student) / "cache"


def _is_segment(path: Path) -> bool:
    """Whether this module writes a file with this path below the cache. Temporary files count too."""
    return path.suffix == ".bin" and path.parent.name.startswith(("rows-", "distributions-"))


def _prepare(folder: Path, reader: Reader, cache: Path, sources: Sequence[Path], split: str) -> Iterator[Shard]:
    """Yield the segments of every shard of a split. Missing segments are made."""
    shelves = [distributions.Shelf(source) for source in sources]
    home = cache / f"rows-{durable.digest(reader.key)[:16]}"
    for name in shards(folder, split):
        own = [_hash(folder / part / f"{name}.parquet") for part in PARTS]
        path, key = home / f"{name}.bin", tokencache.key_of(reader, own)
        rows = _ready(path, key, tokencache.ENTRY, partial(tokencache.make, folder, name, reader, path, key))
        targets = []
        for shelf in shelves:
            path = cache / f"distributions-{shelf.folder.name}" / f"{name}.bin"
            key = distributions.key_of(own, shelf.hashes)
            build = partial(distributions.make, folder, name, shelf, path, key)
            targets.append(_ready(path, key, distributions.ENTRY, build))
        yield Shard(name, rows, tuple(targets))


def _ready(path: Path, key: str, kind: np.dtype[np.void], build: Callable[[], None]) -> Segment:
    """The segment at `path`. If the segment is missing, the process that writes files makes it, and the others wait for
    it.
    """
    segment = Segment.open(path, key, kind)
    if segment is None and durable.writes():
        build()
        segment = Segment.open(path, key, kind)
        if segment is None:
            raise CorpusError(f"{path} changed while it was written", "run the command again")
    while segment is None:
        time.sleep(_POLL)
        segment = Segment.open(path, key, kind)
    return segment


def _hash(path: Path) -> str:
    """The SHA-256 of a file's bytes, or "" when the file does not exist."""
    return durable.sha256(path) if path.exists() else ""


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process. Waits until no other process holds the lock. The kernel releases the lock when
    the process ends.
    """
    durable.make_folder(folder)
    with durable.lock_file(folder) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
