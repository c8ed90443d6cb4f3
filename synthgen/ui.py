"""The only module that prints. This module prints results to stdout, and progress, notes and hints to stderr.

On a terminal, progress is a bar of the library rich. Otherwise, progress is a plain line every ten seconds. `quiet`
prints only results and errors. `as_json` prints the result as one JSON document.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from synthgen.visible import json_ascii, visible

_LINE_EVERY = 10.0  # number of seconds between two plain progress lines


class Printable(Protocol):
    """The result of a command."""

    def text(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


class UI:
    """The output of a command. Library functions accept a UI and print nothing when they get none."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.names: dict[str, str] = {}
        """Texts that are printed in place of other texts: the URL of a store in place of its working folder."""

    def show(self, result: Printable) -> None:
        """Print the result of the command."""
        self.result(result.to_dict(), result.text())

    def result(self, value: dict[str, Any], text: str) -> None:
        """Print a result: `value` with --json, otherwise `text`."""
        try:
            if self.as_json:
                sys.stdout.write(json_ascii(self._named(json.dumps(value, ensure_ascii=False, default=str))) + "\n")
            elif text:
                sys.stdout.write(visible(self._named(text)).rstrip("\n") + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has closed the pipe, as `| head` does; the work itself is finished
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def note(self, text: str) -> None:
        """Print a note while the command runs."""
        if not self.quiet:
            _tell(self._named(text))

    def hint(self, text: str) -> None:
        """Print a hint, which names the next command for the user."""
        if not self.as_json:
            self.note(f"Next: {text}")

    def error(self, message: str, hint: str = "") -> None:
        """Print the error, with one line for each problem, and a hint on what to do."""
        told = "\n  ".join(f"Error: {message}".splitlines()) + (f"\n  → {' '.join(hint.splitlines())}" if hint else "")
        _tell(self._named(told))

    def _named(self, text: str) -> str:
        for one, other in self.names.items():
            text = text.replace(one, other)
        return text

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Progress]:
        """Show progress over `total` units. Yields an object with the methods `advance` and `tokens`."""
        if self.quiet:
            yield Progress(what, total, unit)
        elif sys.stderr.isatty():
            bar = _RichBar(what, total, unit)
            with bar.live:
                yield bar
        else:
            lines = _Lines(what, total, unit)
            yield lines
            lines.last()


def _tell(text: str) -> None:
    with suppress(BrokenPipeError):  # the reader of stderr has closed the pipe; the command continues
        sys.stderr.write(visible(text) + "\n")
        sys.stderr.flush()


class Progress:
    """Counts progress without showing it."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self.failed = self.made_tokens = self.resumed = 0
        self.flight = ""
        self.spent: float | None = None
        self.began = time.monotonic()

    def advance(self, count: int, *, failed: int = 0, resumed: bool = False) -> None:
        """Count `count` more finished units. With `resumed`, these units were finished by an earlier command."""
        self.done += count
        self.failed += failed
        self.resumed += count if resumed else 0
        self.show()

    def tokens(self, count: int) -> None:
        """Count `count` more generated tokens."""
        self.made_tokens += count
        self.show()

    def show(self) -> None:
        """Does nothing in this class; progress bars override it."""

    def remote(self, in_flight: int, limit: int, idle: str, usd: float | None) -> None:
        """Record the state of a remote teacher: the number of requests in flight and its limit, the reason why no more
        requests are sent, and the dollars spent.
        """
        flight = f"{in_flight}/{limit} in flight" + (f" (idle: {idle})" if idle and in_flight < limit else "")
        self.flight, self.spent = flight, usd
        self.show()

    def cost(self) -> str:
        """The dollars that the run has spent, or '' when they are unknown or 0."""
        return f"${self.spent:.4f}" if self.spent else ""

    def sending(self) -> str:
        """How many requests are in flight, or '' when all units are done."""
        return self.flight if self.done < self.total else ""

    def rate(self) -> str:
        """The text 'N tokens/s', or '' when there are no tokens yet."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return f"{self.made_tokens / seconds:,.0f} tokens/s" if self.made_tokens else ""

    def eta(self) -> str:
        """The text 'ETA m:ss', estimated from the units that this process finished, or '' when it finished none."""
        fresh = self.done - self.resumed
        if not fresh or self.done >= self.total:
            return ""
        left = (time.monotonic() - self.began) / fresh * (self.total - self.done)
        return f"ETA {int(left) // 60}:{int(left) % 60:02d}"


class _Lines(Progress):
    def __init__(self, what: str, total: int, unit: str) -> None:
        super().__init__(what, total, unit)
        self.shown = time.monotonic()

    def show(self) -> None:
        if time.monotonic() - self.shown >= _LINE_EVERY:
            self.line()

    def last(self) -> None:
        if self.done:
            self.line()

    def line(self) -> None:
        self.shown = time.monotonic()
        parts = [f"{self.what}: {self.done}/{self.total} {self.unit}"]
        parts += [f"{self.resumed} were already there"] if self.resumed else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [part for part in (self.sending(), self.cost(), self.rate(), self.eta()) if part]
        _tell("  " + " · ".join(parts))


class _RichBar(Progress):
    def __init__(self, what: str, total: int, unit: str) -> None:
        super().__init__(what, total, unit)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Live

        self.live = Live(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[more]}"),
            console=Console(stderr=True),
        )
        self.task = self.live.add_task(what, total=total, more="")

    def show(self) -> None:
        more = [f"{self.failed} failed"] if self.failed else []
        more += [part for part in (self.sending(), self.cost(), self.rate(), self.eta()) if part]
        self.live.update(self.task, completed=self.done, more=" · ".join(more))
