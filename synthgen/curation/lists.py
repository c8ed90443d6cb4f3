"""Works with list columns in Arrow, such as `verdicts`, without making a Python object for each row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Rows = npt.NDArray[np.int64]


def lengths(lists: pa.Array) -> Rows:
    """The number of entries of each list; 0 for a list that is null."""
    return numbers(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)


def numbers(array: pa.Array) -> npt.NDArray[np.generic]:
    """Convert an array of numbers or booleans without nulls to numpy."""
    return np.asarray(array.to_numpy(zero_copy_only=False))


def appended(lists: pa.Array, additions: Sequence[tuple[Rows, pa.Array]]) -> pa.Array:
    """Append entries to the lists of some rows.

    `additions` holds pairs (indexes of rows, entries). In each pair, the entry at place i is appended to the list of
    the row whose index is at place i. Entries of the same row are appended in the order of `additions`. A null list
    counts as empty.
    """
    additions = [(rows, entries) for rows, entries in additions if len(rows)]
    if not additions and not lists.null_count:
        return lists
    before = np.repeat(np.arange(len(lists)), lengths(lists))
    rows = np.concatenate([before, *(rows for rows, _ in additions)]).astype(np.int64)
    entries = pa.concat_arrays([lists.flatten(), *(entries.cast(lists.type.value_type) for _, entries in additions)])
    order = np.argsort(rows, kind="stable")
    return as_lists(np.bincount(rows, minlength=len(lists)), entries.take(pa.array(order)), lists.type)


def joined(lists: pa.Array, additions: pa.Array) -> pa.Array:
    """Append list i of `additions` to list i of `lists`, for each row i."""
    if pc.sum(pc.list_value_length(lists)).as_py() in (0, None) and not lists.null_count:
        return additions
    rows = np.repeat(np.arange(len(additions)), lengths(additions))
    return appended(lists, [(rows, additions.flatten())])


def as_lists(counts: npt.NDArray[np.generic], entries: pa.Array, kind: pa.ListType) -> pa.Array:
    """Divide `entries` into consecutive lists of type `kind`. `counts` is the number of entries of each list."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), entries, type=kind)


def empty_lists(count: int, kind: pa.ListType) -> pa.Array:
    """`count` empty lists of type `kind`."""
    return as_lists(np.zeros(count), pa.array([], kind.value_type), kind)
