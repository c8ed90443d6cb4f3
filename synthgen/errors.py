"""One tree of errors; each says what is wrong, with which value, and what to do next.

    SynthgenError            exit 70 when it reaches the command line bare (a bug of ours)
    ├── UserError            exit 2: the user can mend it
    │   ├── RecipeError      a recipe, a template or a seed file
    │   ├── TeacherError     a model that cannot be loaded or asked
    │   ├── CorpusError      a shard or manifest that is damaged, missing or does not match
    │   └── RunChanged       the output folder belongs to another recipe
    └── GateDenied           exit 1: a gate or threshold said no

Interruption (Ctrl-C, SIGTERM) is `KeyboardInterrupt`, exit 130.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SynthgenError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(SynthgenError):
    """Something the user can mend; `hint` is the next command or edit."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe, template or seed that cannot be used as it is."""


class TeacherError(UserError):
    """A teacher that cannot be loaded or asked."""


class CorpusError(UserError):
    """A corpus whose files are damaged, missing or do not belong together."""


class RunChanged(UserError):
    """The output folder was begun with other inputs."""


class GateDenied(SynthgenError):
    """A gate (audit, threshold) said no."""

    exit_code = 1


def missing_extra(package: str, extra: str) -> UserError:
    """The one line for an optional dependency that is not installed."""
    return UserError(
        f"this needs the package '{package}', which is not installed",
        f"pip install 'synthgen-distill[{extra}]'",
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"`, or the list of what is allowed when nothing is close."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}"
