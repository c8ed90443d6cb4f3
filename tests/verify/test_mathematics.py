"""Mathematics is compared in a process that can be killed, that starts again, and that never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from table import KINDS, MATHEMATICS

from synthgen.verify import matches, mathematics

pytest.importorskip("math_verify", reason="math-verify is in the extra [curate]")

ENDLESS = "9^{9^{9^{x}}}", "9^{9^{9^{9}}}"  # the second expression makes sympy compute forever


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    mathematics.stop()


def test_a_comparison_that_takes_too_long_is_killed_and_the_next_one_is_answered(monkeypatch):
    assert mathematics.decide("x+1", "1+x") is True
    first = mathematics._process
    monkeypatch.setattr(mathematics, "SECONDS", 0.2)
    began = time.monotonic()
    assert mathematics.decide(*ENDLESS) is None
    assert time.monotonic() - began < 5
    assert first.poll() is not None
    monkeypatch.setattr(mathematics, "SECONDS", 20)
    assert mathematics.decide("x+3", "3+x") is True


@pytest.mark.slow
def test_whatever_kills_it_the_next_comparison_starts_another():
    os.kill(mathematics._running().pid, signal.SIGKILL)
    assert mathematics.decide("x+2", "x+1") is not True
    assert mathematics.decide("x+4", "4+x") is True


def test_expressions(monkeypatch):
    monkeypatch.setattr(mathematics, "SECONDS", 20)
    rejected = [
        (a, reference) for reference, right, _ in KINDS[MATHEMATICS] for a in right if not matches(a, reference)
    ]
    accepted = [(a, reference) for reference, _, wrong in KINDS[MATHEMATICS] for a in wrong if matches(a, reference)]
    assert (rejected, accepted) == ([], [])


@pytest.mark.parametrize("question", [None, pytest.param(ENDLESS, marks=pytest.mark.slow)], ids=["start", "later"])
def test_the_process_ends_when_its_parent_is_killed(question):
    program = (
        "from synthgen.verify import mathematics\n"
        f"question = {question!r}\n"
        "mathematics.SECONDS = 60\n"
        "if question: mathematics.decide('x+1', '1+x')\n"
        "print('ready', flush=True)\n"
        "mathematics.decide(*(question or ('x+1', '1+x')))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    parent.stdout.readline()
    deadline = time.monotonic() + 30
    while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.01)
    [child] = children
    time.sleep(0.1)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, alive = psutil.wait_procs([child], timeout=5)
    for process in alive:
        process.kill()
    assert gone
    assert not alive


def test_without_the_extra_mathematics_does_not_match(monkeypatch):
    monkeypatch.setattr(mathematics, "installed", lambda: False)
    mathematics.decide.cache_clear()
    assert not matches("\\frac{2}{\\sqrt{2}}", "\\sqrt{2}")
    assert matches("\\frac{6}{8}", "0.75")
    mathematics.decide.cache_clear()
