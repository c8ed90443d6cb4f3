"""Handles Ctrl-C and SIGTERM while requests are in flight, so that no paid reply is lost.

The first signal stops sending. The replies to the requests in flight are awaited and kept, for at most `GRACE` seconds.
The second signal cancels these requests.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

GRACE = 60.0
"""The maximum number of seconds to wait for requests in flight after the first signal."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Raised when a signal has stopped the run."""


class Sends(Protocol):
    """An object that has requests in flight."""

    def stop(self, error: Exception) -> None:
        """Send no more requests. Raise `error` when the requests in flight have ended."""

    def cut(self) -> None:
        """Cancel the requests in flight."""


class Interruption:
    """A context in which SIGINT and SIGTERM stop `senders`. `note` prints a line for the user.

    Outside the main thread, signals cannot be handled, so the context has no effect. Raises Interrupted at the end of
    the context if a signal came.
    """

    def __init__(self, senders: Sequence[Sends], note: Callable[[str], None]) -> None:
        self.senders, self.note = senders, note
        self._before: dict[signal.Signals, object] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._signals = 0

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._loop = asyncio.get_running_loop()
            for number in _SIGNALS:
                self._before[number] = signal.getsignal(number)
                self._loop.add_signal_handler(number, self._signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._signals and kind is None:  # the signal came when the senders had already ended
            raise Interrupted

    def _signal(self) -> None:
        self._signals += 1
        if self._signals > 1:
            self._cut()
            return
        for sender in self.senders:
            sender.stop(Interrupted())
        self.note(
            f"stopping: requests in flight are awaited for at most {GRACE:.0f} s and kept; "
            "press Ctrl-C again to cancel them"
        )
        self._timer = self._loop.call_later(GRACE, self._cut)

    def _cut(self) -> None:
        for sender in self.senders:
            sender.cut()
