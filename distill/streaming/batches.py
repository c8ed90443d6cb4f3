"""Which rows an optimizer step learns from, and reading them before they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class Order:
    """The row numbers of each optimizer step: an epoch is a permutation of all `count` rows, a function of
    (seed, epoch), cut into batches. The last batch of an epoch may be smaller.

    The permutation of one epoch is kept: 4 bytes a row.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.steps_per_epoch = -(-count // batch_size)
        self._epoch: tuple[int, npt.NDArray[np.uint32]] | None = None

    def rows(self, step: int) -> list[int]:
        """Row numbers of step `step`, from 0."""
        epoch, number = divmod(step, self.steps_per_epoch)
        return [int(i) for i in self.permutation(epoch)[number * self.batch_size : (number + 1) * self.batch_size]]

    def permutation(self, epoch: int) -> npt.NDArray[np.uint32]:
        """All row numbers in the order of one epoch."""
        kept = self._epoch
        if kept is None or kept[0] != epoch:
            drawn = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(self.count)
            kept = self._epoch = (epoch, drawn.astype(np.uint32))
        return kept[1]


class Joined(Sequence[T]):
    """Sequences one after the other, none of which is copied."""

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
    """`read(step)`, with the following step read by one thread while the caller works on this one.

    Steps may be asked for in any order; no step from `stop` on is read ahead. An error that the thread meets is raised
    where its step is asked for. `close` waits for the read that is under way.
    """

    def __init__(self, read: Callable[[int], T], stop: int) -> None:
        self._read, self._stop = read, stop
        self._pool = ThreadPoolExecutor(1, "read-ahead")
        self._next: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """What `read(step)` gives."""
        waiting, self._next = self._next, None
        found = waiting[1].result() if waiting and waiting[0] == step else self._read(step)
        if step + 1 < self._stop:
            self._next = (step + 1, self._pool.submit(self._read, step + 1))
        return found

    def close(self) -> None:
        """End the thread."""
        self._next = None
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
