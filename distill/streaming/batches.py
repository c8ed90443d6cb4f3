"""Chooses the rows of each optimizer step, and reads the rows of the next step in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from synthgen.errors import UserError

T = TypeVar("T")

_MOST_ROWS = 2**32


class Order:
    """The indices of the rows of each optimizer step.

    The order of an epoch is a permutation of all `count` rows, drawn from (seed, epoch). The permutation is cut into
    batches. The last batch of an epoch may be smaller. The permutation of the current epoch stays in memory, 4 bytes a
    row. Raises UserError for more rows than 4 bytes can number.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if count > _MOST_ROWS:
            raise UserError(f"{count:,} rows are more than {_MOST_ROWS:,}", "train on a part: set train.share")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.steps_per_epoch = -(-count // batch_size)
        self._epoch: tuple[int, npt.NDArray[np.uint32]] | None = None

    def rows(self, step: int) -> list[int]:
        """The indices of the rows of step `step`. Steps are counted from 0."""
        epoch, number = divmod(step, self.steps_per_epoch)
        return [int(i) for i in self.permutation(epoch)[number * self.batch_size : (number + 1) * self.batch_size]]

    def permutation(self, epoch: int) -> npt.NDArray[np.uint32]:
        """The indices of all rows, in the order of epoch `epoch`."""
        kept = self._epoch
        if kept is None or kept[0] != epoch:
            drawn = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(self.count)
            kept = self._epoch = (epoch, drawn.astype(np.uint32))
        return kept[1]


class Joined(Sequence[T]):
    """Several sequences concatenated without copying."""

    def __init__(self, *parts: Sequence[T]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @overload
    def __getitem__(self, key: int) -> T: ...

    @overload
    def __getitem__(self, key: slice) -> list[T]: ...

    def __getitem__(self, key: int | slice) -> T | list[T]:
        if isinstance(key, slice):
            return [self[number] for number in range(*key.indices(len(self)))]
        number = range(len(self))[key]
        for part in self._parts:
            if number < len(part):
                return part[number]
            number -= len(part)
        raise IndexError(key)


class Ahead(Generic[T]):
    """Calls `read(step)`, and reads the next step in a thread while the caller works on the current one.

    Steps may be requested in any order. Steps from `stop` on are not read ahead. An error in the thread is raised by
    the call that requests the step. `close` waits for a read in progress.
    """

    def __init__(self, read: Callable[[int], T], stop: int) -> None:
        self._read, self._stop = read, stop
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._next: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """Return the result of `read(step)`."""
        waiting, self._next = self._next, None
        found = waiting[1].result() if waiting and waiting[0] == step else self._read(step)
        if step + 1 < self._stop:
            self._next = (step + 1, self._pool.submit(self._read, step + 1))
        return found

    def close(self) -> None:
        """Stop the thread."""
        self._next = None
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
