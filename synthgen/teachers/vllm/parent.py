"""Ends vLLM's engine process when its parent process ends for any reason.

vLLM ends its workers when the engine ends, but it does not end the engine when the engine's parent is killed. The
engine would then wait for requests forever and keep the model in memory. Therefore, every process that is started in
the context `children_follow` watches its parent in a thread, and ends when the parent has ended. A forked process
begins to watch immediately, through `os.register_at_fork`. A spawned process begins when it unpickles its
configuration, before it waits for anything.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAME = "SYNTHGEN_VLLM_PARENT"  # environment variable with the process id of the parent
_LOOK = 0.2  # seconds between two checks of the parent process
_hooked = False


@contextmanager
def children_follow(config: Any) -> Iterator[None]:
    """A context for starting processes that must end when this process ends. The context works for forked processes,
    and for spawned processes that receive `config`, a VllmConfig.
    """
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
    """A dictionary that makes a process watch its parent from the moment when the process unpickles the dictionary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (dict(self),)


def _unpickled(values: dict[str, Any]) -> dict[str, Any]:
    _begin()
    return values


def _begin() -> None:
    """Begin to watch the parent process if the environment variable `_NAME` holds its id."""
    parent = int(os.environ.get(_NAME, "0"))
    if parent and parent != os.getpid():
        del os.environ[_NAME]  # the engine's workers need no watch, because vLLM ends them with the engine
        threading.Thread(target=_watch, args=(parent,), name="synthgen-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGKILL)
