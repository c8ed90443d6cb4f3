"""The rows of a stream in the form that one kind of student learns from.

    rows = Mapped(stream, lambda stored: Text(stored.example.prompt, stored.values, stored.example.kept))
    rows[0], rows[10:20]                              # read from the cache when they are asked for

A row has two forms. The whole row has everything. An outline says only whether curation kept the row and, if the
student writes text, how many tokens the completion has and which of them are masked. If an objective computes the loss
of some rows of a step, it needs only the outlines of the other rows of the step. The outlines of all validation rows
fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Generic, Protocol, TypeVar, overload, runtime_checkable

from distill.data import Example
from distill.streaming.stream import Stream
from distill.streaming.tokencache import Stored

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Outlined(Protocol[T_co]):
    """A sequence of rows that are read when they are accessed."""

    @property
    def outline(self) -> Sequence[T_co]:
        """The outlines of all rows."""


class Mapped(Sequence[T], Generic[T]):
    """The rows of `stream`. `whole` makes a row from its stored form, and `bare` makes the row's outline."""

    def __init__(self, stream: Stream, whole: Callable[[Stored], T], bare: Callable[[Stored], T]) -> None:
        self.stream, self.whole, self.bare = stream, whole, bare

    def __len__(self) -> int:
        return len(self.stream)

    @overload
    def __getitem__(self, key: int) -> T: ...

    @overload
    def __getitem__(self, key: slice) -> list[T]: ...

    def __getitem__(self, key: int | slice) -> T | list[T]:
        if isinstance(key, slice):
            return [self.whole(stored) for stored in self.stream.stored(range(*key.indices(len(self))))]
        return self.whole(self.stream.stored([range(len(self))[key]])[0])

    @cached_property
    def outline(self) -> list[T]:
        """See `Outlined`."""
        return [self.bare(stored) for number in range(len(self)) for stored in self.stream.stored([number])]


def outline_of(example: Example) -> Example:
    """Return a row with the same number of completion tokens, but without token ids, prompts and distribution."""
    also = tuple(map(outline_of, example.also))
    completion = [0] * len(example.completion)
    return replace(example, prompt=[], completion=completion, target=None, teacher_prompt=(), also=also)


class Completions(Mapped[Example]):
    """The rows of a stream for students that write text, with their distributions."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, lambda stored: stored.example, lambda stored: outline_of(stored.example))

    @overload
    def __getitem__(self, key: int) -> Example: ...

    @overload
    def __getitem__(self, key: slice) -> list[Example]: ...

    def __getitem__(self, key: int | slice) -> Example | list[Example]:
        return self.stream[key]

    @cached_property
    def outline(self) -> list[Example]:
        """See `Outlined`. The outlines have the masks of the rows; see `Stream.batch`."""
        numbers = range(len(self))
        return [outline_of(example) for number in numbers for example in self.stream.rows([number], targets=False)]
