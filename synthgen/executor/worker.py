"""The main function of a worker process. A worker runs tasks from its parent process until the parent ends."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from multiprocessing.connection import Connection

from synthgen.executor.base import Services


def main(channel: int, life: int) -> None:
    """Run the tasks that arrive through the file descriptor `channel`.

    The first message is the pickled `Services`. Each later message is a pickled (function, task), and the reply is a
    pickled (True, result) or (False, exception). `life` is the read end of a pipe whose write end closes when the
    parent process ends. When the write end closes, this process ends immediately, even during a task.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # when the user presses Ctrl-C, the parent ends its workers
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    connection = Connection(channel)
    services: Services = pickle.loads(connection.recv_bytes())
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(answer(message, services))


def answer(message: bytes, services: Services) -> bytes:
    """Run a pickled (function, task). Returns the pickled (True, result), or (False, exception)."""
    try:
        function, task = pickle.loads(message)
        return pickle.dumps((True, function(task, services)))
    except Exception as error:
        return failed(error)


def failed(error: BaseException) -> bytes:
    """The pickled (False, exception) for an exception that was raised in a worker."""
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        answer = pickle.dumps((False, error))
        pickle.loads(answer)
    except Exception:  # the exception cannot be pickled
        answer = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return answer


def _end_with_parent(life: int) -> None:
    os.read(life, 1)
    os._exit(1)
