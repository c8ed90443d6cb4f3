"""The process that runs math-verify. The process reads one JSON list [answer, reference] from each line, both in LaTeX.
The process writes true or false, or null if it cannot read the answer or the reference.

The process ends at once when its parent ends, even during a comparison: a thread waits for the end of the input. The
kernel ends the process if a comparison holds the interpreter's lock for longer than `LIMIT` seconds.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import resource
import signal
import sys
import threading
from dataclasses import replace

LIMIT = 20  # number of seconds of wall time; the parent waits for a shorter time
MEMORY = 4 * 1024**3  # bytes
PLACES = 12  # number of decimal places to which numbers must agree


def main() -> None:
    """Answer the questions on the standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent reacts when the user presses Ctrl-C
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    questions: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(questions,), daemon=True).start()
    import math_verify  # noqa: F401  (it takes seconds, so it is imported before the first question)

    logging.disable(logging.CRITICAL)
    _write("ready")
    while True:
        answer, reference = json.loads(questions.get())
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        verdict = compare(answer, reference)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(verdict)


def compare(answer: str, reference: str) -> bool | None:
    """Whether two expressions in LaTeX are equal, or None if one of them cannot be read."""
    from math_verify import LatexExtractionConfig, parse, verify

    latex = LatexExtractionConfig()  # the default cuts units off, so 5s would equal 5
    latex = replace(latex, normalization_config=replace(latex.normalization_config, units=False, boxed="none"))
    sides = []
    for text in (reference, answer):
        try:
            sides.append(parse(f"${text}$", [latex], "no_fallback", "first_match", None, True))
        except Exception:  # math-verify and its parser raise errors of many classes
            return None
    if not all(sides):
        return None
    try:
        return bool(verify(*sides, float_rounding=PLACES, strict=True, timeout_seconds=None, raise_on_error=True))
    except Exception:
        return None


def _read(questions: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        questions.put(line)
    os._exit(0)


def _write(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
