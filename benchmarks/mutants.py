"""Changes one place of the source at a time, and checks that a test of that source fails.

    python benchmarks/mutants.py [--seed 1] [--count 200] [--areas budget seeds] [--part 1/4] [--out mutants.jsonl]

A mutant is a copy of the source with one change. The change replaces a comparison or an operator by another one, a
number by the next number, or True by False. Each area of `mutant_areas.py` is a part of the source with its tests. The
mutants are drawn evenly over the areas. The same seed draws the same mutants while the source stays the same. Each
mutant runs the tests of its file until the first failure. A run that takes too long counts as a failure.

Results are appended to the file of `--out`. A run that was interrupted continues from this file. A mutant that a test
detected is not run again. A mutant that survived is run again, because a new test may detect it now. `--part 2/4` runs
the second quarter of the mutants.

Prints every survivor and a table, and exits with 1 if less than 90% of the mutants make a test fail.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from changes import changes, line_of
from mutant_areas import AREAS

REPOSITORY = Path(__file__).parent.parent
COPIED = ("synthgen", "distill", "tests", "prompts", "data", "docs", "benchmarks", "pyproject.toml", "README.md")
WANTED = 0.9
MEMORY = 8 << 30  # bytes that a process of a test may allocate


class Mutant(NamedTuple):
    """One change: the bytes `start` to `stop` of a file become `new`. `source` is a hash of the file."""

    area: str
    file: str
    source: str
    start: int
    stop: int
    new: str

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.file, self.source, self.start, self.new

    def applied(self, text: bytes) -> bytes:
        return text[: self.start] + self.new.encode() + text[self.stop :]

    def described(self, text: bytes) -> str:
        """The place of the change, and the line before and after the change."""
        first, last = text.rfind(b"\n", 0, self.start) + 1, text.find(b"\n", self.stop)
        before, after = text[first:last], text[first : self.start] + self.new.encode() + text[self.stop : last]
        lines = [" ".join(line.decode().split()) for line in (before, after)]
        return f"{self.file}:{line_of(text, self.start)}, {lines[0]} → {lines[1]}"


# Mutants of a file


def sources(area: str) -> dict[str, tuple[str, ...]]:
    """Maps each file of an area to its tests."""
    return {
        path.relative_to(REPOSITORY).as_posix(): tuple(f"tests/{test}" for test in tests)
        for pattern, tests in AREAS[area].items()
        for path in sorted(REPOSITORY.glob(pattern))
    }


@cache
def mutants(area: str) -> tuple[Mutant, ...]:
    """Every mutant of an area."""
    found: list[Mutant] = []
    for file in sources(area):
        text = (REPOSITORY / file).read_bytes()
        source = hashlib.sha256(text).hexdigest()[:16]
        found += [Mutant(area, file, source, *change) for change in changes(text)]
    return tuple(found)


def sample(areas: Iterable[str], seed: int, count: int) -> list[Mutant]:
    """`count` mutants, drawn from the areas in turn, so that each area has the same number as long as it has enough
    mutants. The draws from an area do not depend on other areas.
    """
    drawn = []
    for area in areas:
        found = list(mutants(area))
        random.Random(f"{seed} {area}").shuffle(found)
        drawn.append(found)
    longest = max(map(len, drawn))
    return [found[place] for place in range(longest) for found in drawn if place < len(found)][:count]


# Tests of a mutant


def end_with_parent() -> None:
    """On Linux, this process is killed when its parent ends in any way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def copy_source(folder: Path) -> None:
    """Copies the source to a folder of this process, which is named after the process id."""
    end_with_parent()
    for part in COPIED:
        origin, place = REPOSITORY / part, folder / str(os.getpid()) / part
        if origin.is_dir():
            shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, place)


def place(folder: Path, file: str, text: bytes) -> None:
    """Writes a file of the copy. Deletes the compiled module, because Python might run the compiled module instead of
    the new text.
    """
    path = folder / file
    path.write_bytes(text)
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def tested(folder: Path, tests: Iterable[str], limit: float) -> tuple[str, float]:
    """Runs tests in the copy until the first failure. Returns ("" or the failure, seconds)."""
    began = time.monotonic()
    log = folder / "log"
    child = os.fork()
    if child == 0:
        run_child(folder, list(tests), log)
    status = None
    try:
        while status is None and time.monotonic() - began < limit:
            ended, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if ended else None
            if status is None:
                time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # kills the tests and every process that they left
        if status is None:
            os.waitpid(child, 0)
    seconds = time.monotonic() - began
    if status is None:
        return "takes too long", seconds
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(errors="replace"), re.MULTILINE)
    return (failed[1] if failed else f"status {status}") if status else "", seconds


def run_child(folder: Path, tests: list[str], log: Path) -> None:
    """Runs the tests in this process, a fork that has imported the large libraries. Never returns."""
    status = 1
    try:
        os.setsid()
        end_with_parent()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        with log.open("wb") as file, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        for name in ("tmp", "cache"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
        places = {"PYTHONPATH": folder, "TMPDIR": folder / "tmp", "SYNTHGEN_CACHE": folder / "cache"}
        os.environ |= {name: str(path) for name, path in places.items()}
        tempfile.tempdir = None
        os.chdir(folder)
        sys.path[0] = str(folder)
        sys.modules["__main__"] = ModuleType("__main__")  # otherwise, processes of tests would run this script first
        import pytest

        status = int(
            pytest.main([*tests, "-x", "-q", "-rfE", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp' / 'b'}"])
        )
        import synthgen

        if not str(synthgen.__file__).startswith(str(folder)):
            status = 90  # the tests did not import the copy of the source
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
    finally:
        os._exit(status)


def run_group(folder: Path, tests: tuple[str, ...], group: list[Mutant], out: Path) -> None:
    """Tests mutants that have the same tests, and appends each result to `out`. Raises RuntimeError if the tests fail
    without a mutant.
    """
    copy = folder / str(os.getpid())
    failure, usual = tested(copy, tests, 600)
    if failure:
        log = (copy / "log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(tests)} fail without a mutant ({failure}):\n{log}")
    for mutant in group:
        text = (REPOSITORY / mutant.file).read_bytes()
        place(copy, mutant.file, mutant.applied(text))
        try:
            failure, seconds = tested(copy, tests, 30 + 3 * usual)
        finally:
            place(copy, mutant.file, text)
        said = mutant.described(text)
        record = {**mutant._asdict(), "change": said, "red": failure, "seconds": round(seconds, 1)}
        with out.open("a") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        print(f"{'red     ' if failure else 'SURVIVED'} {seconds:5.1f} s  {mutant.area}  {said}", flush=True)


def read_results(out: Path) -> dict[tuple[str, str, int, str], str]:
    """Maps the key of each mutant that was run to the test that failed, or to '' if none did."""
    results = {}
    for line in out.read_text().splitlines() if out.exists() else ():
        record = json.loads(line)
        results[Mutant(*(record[name] for name in Mutant._fields)).key] = record["red"]
    return results


def report(chosen: list[Mutant], results: dict[tuple[str, str, int, str], str]) -> float:
    """Prints the survivors and the table. Returns the share of mutants that made a test fail."""
    for mutant in chosen:
        if not results[mutant.key]:
            print(f"survived: {mutant.described((REPOSITORY / mutant.file).read_bytes())}")
    print("\nroom | mutants | red | share\n---|---|---|---")
    areas = [*dict.fromkeys(mutant.area for mutant in chosen), "all"]
    share = 0.0
    for area in areas:
        found = [bool(results[mutant.key]) for mutant in chosen if area in (mutant.area, "all")]
        share = sum(found) / len(found)
        print(f"{area} | {len(found)} | {sum(found)} | {share:.0%}")
    return share


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="draws other mutants")
    parser.add_argument("--count", type=int, default=200, help="the number of mutants of all parts together")
    parser.add_argument("--areas", nargs="+", choices=AREAS, default=list(AREAS), help="the areas to draw from")
    parser.add_argument("--part", default="1/1", help="which part of the mutants to run, such as 2/4")
    parser.add_argument("--workers", type=int, default=2, help="the number of mutants that run at the same time")
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), help="the file of results")
    given = parser.parse_args()
    part, parts = map(int, given.part.split("/"))
    if not 1 <= part <= parts or given.count < 1 or given.workers < 1:
        parser.error("--part is i/n with i from 1 to n, and --count and --workers are at least 1")
    chosen = sample(given.areas, given.seed, given.count)[part - 1 :: parts]
    groups: dict[tuple[str, ...], list[Mutant]] = {}
    results = read_results(given.out)
    for mutant in chosen:
        if not results.get(mutant.key):
            groups.setdefault(sources(mutant.area)[mutant.file], []).append(mutant)
    os.environ["OMP_NUM_THREADS"] = "1"  # with more threads, a fork would wait for threads that only its parent has
    for library in ("pytest", "datasets", "pandas", "pyarrow.parquet", "torch._dynamo", "transformers.masking_utils"):
        __import__(library)  # imported once for all forks, because imports take most of the time of a run
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder, fork = Path(name), multiprocessing.get_context("fork")
        with ProcessPoolExecutor(given.workers, fork, copy_source, (folder,)) as pool:
            longest = sorted(groups.items(), key=lambda item: -len(item[1]))
            waiting = [pool.submit(run_group, folder, tests, group, given.out) for tests, group in longest]
            for done in as_completed(waiting):
                if error := done.exception():
                    pool.shutdown(cancel_futures=True)
                    print(error)
                    return 2
    return int(report(chosen, read_results(given.out)) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
