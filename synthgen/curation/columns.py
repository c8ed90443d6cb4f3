"""The columns that rules read: columns of the shards and columns derived from them.

    completion.text     the completion as text; for rows without a completion, the last message of the prompt
    completion.plain    completion.text in lower case, words separated by single spaces
    prompt.text         the contents of the prompt's messages, separated by NUL characters
    prompt.plain        prompt.text in lower case, words separated by single spaces
    completion.said     the completion with its tool calls and reasoning, words separated by single spaces
    completion.whole    completion.said with the role of each message
    prompt.said         the same as completion.said for the prompt
    prompt.whole        the same as completion.whole for the prompt
    stored.confidence   measures of the teacher's stored distributions (see `synthgen.curation.confidence`)

A derived column is computed once for each batch, even when several rules read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from synthgen.curation.plain import completion_text, contents, plain, said, whole

Made = Callable[..., pa.Array]

DERIVED: dict[str, tuple[tuple[str, ...], Made]] = {
    "completion.text": (("completion", "prompt"), completion_text),
    "completion.plain": (("completion.text",), plain),
    "prompt.text": (("prompt",), lambda prompt: contents(prompt, "\0")),
    "prompt.plain": (("prompt.text",), plain),
    "completion.said": (("completion",), said),
    "prompt.said": (("prompt",), said),
    "completion.whole": (("completion",), whole),
    "prompt.whole": (("prompt",), whole),
}
"""Maps the name of a derived column to its input columns and the function that computes it."""

CONFIDENCE = "stored.confidence"
_ADDED = {CONFIDENCE: ("id", "teacher", "token_ids")}
"""Columns that `judge.read` adds, because they need other files of the shard. Each column is mapped to the stored
columns that are needed for it."""


def stored(names: Iterable[str]) -> list[str]:
    """The columns of a shard that are needed to provide the columns `names`, which may be stored or derived."""
    sources: dict[str, None] = {}
    for name in names:
        if name in _ADDED:
            sources |= dict.fromkeys(_ADDED[name])
        elif name in DERIVED:
            sources |= dict.fromkeys(stored(DERIVED[name][0]))
        else:
            sources[name] = None
    return list(sources)


class Columns:
    """The columns that were read or derived so far, for one batch of rows. `select` returns the columns that a rule
    declares.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._known: dict[str, pa.Array] = dict(zip(batch.schema.names, batch.columns, strict=True))
        self.rows: int = batch.num_rows

    def select(self, names: Iterable[str]) -> pa.RecordBatch:
        """A batch with only the named columns."""
        wanted = list(dict.fromkeys(names))
        return pa.RecordBatch.from_arrays([self.column(name) for name in wanted], names=wanted)

    def column(self, name: str) -> pa.Array:
        """Return the stored or derived column `name`. Raises KeyError if there is no such column."""
        if name not in self._known:
            sources, function = DERIVED[name]
            self._known[name] = function(*(self.column(source) for source in sources))
        return self._known[name]

    def replace(self, columns: dict[str, pa.Array]) -> None:
        """Replace stored columns with other arrays. Derived columns are computed again when they are next needed."""
        self._known = {name: array for name, array in self._known.items() if name not in DERIVED} | columns
