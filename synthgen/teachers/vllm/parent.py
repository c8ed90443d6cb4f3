"""vLLM's engine ends when the process that started it does, however that ended.

An engine whose parent was killed waits for requests for ever, with the model in memory: vLLM ties its workers to the
engine, but not the engine to whoever asked for it. So a process that is started while `children_follow` holds watches
its parent in a thread. A forked one begins at once, by a hook of `os`. A spawned one begins when it unpickles the
configuration that it is given, before it waits for anything.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAME = "SYNTHGEN_VLLM_PARENT"  # process id of whoever starts the engine
_LOOK = 0.2  # seconds
_hooked = False


@contextmanager
def children_follow(config: Any) -> Iterator[None]:
    """Processes that are started inside end with this one, if they are forked or given `config`, a VllmConfig."""
    global _hooked
    if not _hooked:
        os.register_at_fork(after_in_child=_begin)
        _hooked = True
    config.additional_config = _Watching(config.additional_config or {})
    os.environ[_NAME] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(_NAME, None)


class _Watching(dict[str, Any]):
    """A dictionary that begins the watch where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (dict(self),)


def _unpickled(values: dict[str, Any]) -> dict[str, Any]:
    _begin()
    return values


def _begin() -> None:
    """Watch the parent, if this is a process that follows one, and does not yet."""
    parent = int(os.environ.get(_NAME, "0"))
    if parent and parent != os.getpid():
        del os.environ[_NAME]  # the workers of an engine follow the engine, by vLLM's own means
        threading.Thread(target=_watch, args=(parent,), name="synthgen-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGKILL)
