"""The tree of exceptions. Each message says what is wrong, with which value, and what to do next.

    SynthgenError            exit 70 when it is not one of the classes below (a bug)
    ├── UserError            exit 2: the user can correct it
    │   ├── RecipeError      a recipe, a template or a seed file
    │   ├── TeacherError     a model that cannot be loaded or queried
    │   ├── CorpusError      a shard or manifest that is damaged, missing or does not match
    │   └── RunChanged       the output folder belongs to another recipe
    └── GateDenied           exit 1: a gate or threshold failed

An interruption (Ctrl-C or SIGTERM) raises `KeyboardInterrupt`, exit 130.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST = 600  # maximum number of characters of a message about the user's rows


class SynthgenError(Exception):
    """Base class of all errors that this package raises on purpose."""

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(SynthgenError):
    """An error that the user can correct; `hint` is the next command or edit."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe, template or seed file cannot be used as it is."""


class TeacherError(UserError):
    """A teacher cannot be loaded or queried."""


class CorpusError(UserError):
    """Files of a corpus are damaged, missing or do not belong together."""


class RunChanged(UserError):
    """The output folder was started with other inputs."""


class GateDenied(SynthgenError):
    """A gate (audit or threshold) failed."""

    exit_code = 1


def one_line(text: str) -> str:
    """A text that may hold the user's values, as one line that is safe to print: characters that are not printable are
    escaped, and a long text is cut.
    """
    cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """A context manager, which can also decorate a function. Every `UserError` that leaves the context has a message of
    one line, whatever names and values the user's rows have.
    """
    try:
        yield
    except UserError as error:
        error.message, error.hint = one_line(error.message), one_line(error.hint)
        error.args = (error.message,)
        raise


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(
        f"this needs the package '{package}', which is not installed",
        f"pip install 'synthgen-distill[{extra}]'",
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """The text to append to a message about an unknown `word`: "; did you mean 'x'?", or all `known` names when none is
    similar.
    """
    known = list(known)
    found = close(word, known)
    if found:
        return f"; did you mean {' or '.join(repr(name) for name in found)}?"
    return f"; known: {', '.join(sorted(known))}"


def close(word: str, known: Iterable[str]) -> list[str]:
    """Up to three of the `known` names that the user may have meant by `word`; [] when none is similar.

    Parts of a name are joined by `_`. These kinds of names are tried in order, and the names of the first kind with a
    match are returned:

    - Names that `word` misspells. If such a name has as many parts as `word`, each part differs by few edits from the
      part of `word` in the same position. Otherwise the name differs from `word` only in underscores, or by one edit.
      An edit changes, omits or adds a letter, or swaps two neighbors. Short parts allow fewer edits, so that top_k does
      not match top_p, and min_ does not match max_.
    - Names that contain every part of `word`. A part of `word` may be shortened or misspelled ('epoch' finds
      num_train_epochs).
    - Names whose parts are all parts of `word` ('model_name' finds model).
    - Names whose initials are `word` ('lr' finds learning_rate).
    """
    known = list(dict.fromkeys(known))
    word = _folded(word)
    spelled = sorted((edits, name) for name in known if (edits := _misspelled(word, _folded(name))) is not None)
    if spelled:
        return [name for edits, name in spelled if edits == spelled[0][0]][:3]
    parts = word.split("_")
    related = [name for name in known if _contains(_folded(name).split("_"), parts)]
    related = related or [name for name in known if len(name) > 3 and set(_folded(name).split("_")) <= set(parts)]
    related = related or [n for n in known if len(word) > 1 and word == "".join(p[:1] for p in _folded(n).split("_"))]
    return sorted(related, key=len)[:3]


def _folded(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_").strip("_")


def _misspelled(word: str, name: str) -> int | None:
    """The number of edits between `word` and `name`, or None when there are too many for a misspelling."""
    if word.replace("_", "") == name.replace("_", ""):
        return 0
    parts, wanted = word.split("_"), name.split("_")
    if len(parts) != len(wanted):
        edits = _edits(word, name)
        return edits if edits == 1 else None
    edits = 0
    for part, other in zip(parts, wanted, strict=True):
        count, length = _edits(part, other), min(len(part), len(other))
        # Even a short part may have one slip: two swapped letters, or a letter too many or too few. A changed letter is
        # allowed only in parts of four or more letters.
        slip = count == 1 and (set(part) == set(other) or (length > 1 and len(part) != len(other)))
        if count > (0 if length < 4 else 1 if length < 6 else 2) and not slip:
            return None
        edits += count
    return edits if edits <= max(1, len(name) // 3) else None


def _contains(parts: list[str], wanted: list[str]) -> bool:
    """Whether each word of `wanted` equals, begins or misspells one of `parts`."""
    return all(any(_stands_for(one, part) for part in parts) for one in wanted)


def _stands_for(one: str, part: str) -> bool:
    if one == part or (len(one) > 2 and part.startswith(one)) or (len(one) > 4 and _edits(one, part) == 1):
        return True
    shared = next((n for n, (a, b) in enumerate(zip(one, part, strict=False)) if a != b), min(len(one), len(part)))
    return shared > 4 and shared >= 0.75 * min(len(one), len(part))  # 'evaluation' matches 'evaluate'


def _edits(a: str, b: str) -> int:
    """The smallest number of edits that turn `a` into `b`. An edit changes, omits or adds a letter, or swaps two
    neighbors (optimal string alignment).
    """
    rows = [list(range(len(b) + 1))]
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
