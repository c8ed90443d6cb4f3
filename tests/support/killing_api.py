"""Starts runs in forks of one process, and kills each run with SIGKILL at a given commit point or after a delay.

`python tests/support/killing_api.py` reads one JSON object from each line, and writes one JSON object for each line
read:

    in:  {"recipe": path, "run": folder, "at": commit point or null, "after": seconds or null}
    out: {"status": status of waitpid, "points": number of commit points passed}

A commit point is the moment before a call that makes something durable (fsync, rename, or sqlite's COMMIT), and the
moment after a COMMIT. The child kills itself at commit point number `at`. With `after`, this process kills the child
after so many seconds. All modules are imported once, in this process, so that a fork starts without delay.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time


def child(job: dict, pipe: int) -> None:
    import sqlite3

    from synthgen.generation import cache

    lock = threading.Lock()
    passed = [0]

    def point() -> None:
        with lock:
            passed[0] += 1
            os.pwrite(pipe, b"%8d" % passed[0], 0)
            if passed[0] == job.get("at"):
                os.kill(os.getpid(), signal.SIGKILL)

    def before(function):
        def wrapped(*args, **kwargs):
            point()
            return function(*args, **kwargs)

        return wrapped

    os.fsync, os.replace = before(os.fsync), before(os.replace)
    if job.get("sqlite", True):
        original = cache.Cache._transaction

        def transaction(self, connection: sqlite3.Connection, statements) -> None:
            point()
            original(self, connection, statements)
            point()  # the transaction is on the disk, but the call that stores it has not returned

        cache.Cache._transaction = transaction
    import synthgen
    from synthgen.errors import SynthgenError

    try:
        synthgen.generate(synthgen.load_recipe(job["recipe"]), job["run"])
    except SynthgenError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(error.exit_code)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(70)
    os._exit(0)


def main() -> None:
    import aiohttp  # noqa: F401
    import pandas  # noqa: F401

    import synthgen.generation.driver
    import synthgen.teachers.openai  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        file = f"{job['run']}.points"
        pipe = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)
            child(job, pipe)
        if job.get("after") is not None:
            time.sleep(job["after"])
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        passed = int(os.pread(pipe, 8, 0) or 0)
        os.close(pipe)
        print(json.dumps({"status": status, "points": passed}), flush=True)


if __name__ == "__main__":
    main()
