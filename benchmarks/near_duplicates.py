"""Compares near duplicates in synthgen and seven other tools: time, memory, and rows lost.

    python benchmarks/near_duplicates.py [--text rows.jsonl.gz] [--rows 100000] [--repeat 3] [--tools …]

The corpus is real text: each row has about 600 characters of sentences that are put together at random. The sentences
are from the prompts and completions of `--text`, a file of JSON rows {prompt, completion}. Without `--text`, the
sentences are from the project's own pages. One row in five belongs to a cluster of near duplicates, which are edits of
one text: words replaced, a beginning added, a part left out, or two parts swapped. The sizes of clusters follow a power
law, up to 1,000. Everything is drawn with a fixed seed.

The true similarity of two rows is the Jaccard similarity of their sets of 5-word sequences. For corpora of at most
100,000 rows, this program computes the true similarity of all pairs, without any of the tools. The program uses an
index that lists, for each sequence, the rows that contain the sequence. A tool reads the corpus from Parquet and writes
the ids of kept rows. Each tool runs in its own process, and the tools take turns.

- docs/s: rows, divided by the time from the start of the process to its end.
- CPU: user and system time. MB: the peak memory of the largest process (VmHWM).
- lost: rows that were dropped although no kept row is similar (at least 0.8) to them.
- twins left: pairs of kept rows that are similar, as a share of all similar pairs.

synthgen runs in the environment of this program. Each other tool has its own environment under .venv-rivals/, which is
created when it is missing. If a tool cannot be installed, the reason is printed, and the tool is left out. The program
of each tool is in benchmarks/rivals/. semhash runs with a model of random vectors, because its usual model is on a hub:
its time is right, but the rows that it keeps are not those of the usual model.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from curation import sentences as own_sentences

ROOT = Path(__file__).resolve().parent.parent
HOMES = ROOT / ".venv-rivals"
TOOLS: dict[str, tuple[str, ...]] = {
    "synthgen": (),
    "synthgen exact": (),
    "synthgen ray": (),
    "rensa": ("rensa==0.5.0", "pyarrow"),
    "datasketch": ("datasketch==2.0.0", "pyarrow"),
    "textdedup": ("text-dedup==0.4.0",),
    "datatrove": ("datatrove[io,processing,ray]==0.10.1", "spacy"),
    "datatrove ray": ("datatrove[io,processing,ray]==0.10.1", "spacy"),
    "datajuicer": ("py-data-juicer==1.6.1", "aiohttp", "pyarrow"),
    "semhash": ("semhash==0.5.0", "pyarrow"),
    "daft": ("daft==0.7.26", "pyarrow"),
}
"""The packages of each tool's environment. Tools without packages run in the environment of this program.
`benchmarks/scale.py` runs the tools whose names end in "ray"."""
THRESHOLD = 0.8
_PART = 250_000


def sentences(path: Path) -> list[str]:
    """The distinct sentences in a file of rows. Only ASCII sentences are kept, so that all tools see the same words."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        texts = [f"{row['prompt']}\n{row['completion']}" for row in map(json.loads, lines)]
    parts = {" ".join(part.split()) for text in texts for part in re.split(r"(?<=[.!?])\s|\n", text)}
    return sorted(part for part in parts if 30 < len(part) < 300 and part.isascii())


def make(path: Path, count: int, parts: list[str]) -> None:
    """Writes a corpus of `count` rows with the columns id and text. The rows of a cluster lie in one part of `_PART`
    rows.
    """
    words = sorted({word for part in parts[:5000] for word in part.split()})
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    with pq.ParquetWriter(path, schema) as file:
        for first in range(0, count, _PART):
            size = min(_PART, count - first)
            draw = np.random.default_rng([count, first])
            texts = shuffled(size, parts, words, draw)
            file.write_table(
                pa.table({"id": np.arange(first, first + size), "text": texts}, schema), row_group_size=8192
            )


def shuffled(count: int, parts: list[str], words: list[str], draw: np.random.Generator) -> list[str]:
    """Texts in random order. One text in five is an edit of another text."""
    texts: list[str] = []
    near = 0
    while len(texts) < count:
        text = " ".join(parts[n] for n in draw.integers(0, len(parts), draw.integers(5, 14)))
        texts.append(text)
        if near < len(texts) * 0.2:
            size = min(int(draw.pareto(1.2)) + 1, 1000, count - len(texts))
            texts += [edited(text, words, draw) for _ in range(size)]
            near += size
    return [texts[n] for n in draw.permutation(len(texts))]


def edited(text: str, words: list[str], draw: np.random.Generator) -> str:
    """A text with one small edit."""
    pieces = text.split()
    few = max(1, len(pieces) // 40)
    kind, at = draw.integers(4), int(draw.integers(len(pieces)))
    if kind == 0:
        for place in draw.integers(0, len(pieces), draw.integers(1, few + 1)):
            pieces[place] = words[draw.integers(len(words))]
    elif kind == 1:
        pieces = [*(words[n] for n in draw.integers(0, len(words), few)), *pieces]
    elif kind == 2:
        pieces = pieces[:at] + pieces[at + few :]
    else:
        pieces = pieces[at:] + pieces[:at]
    return " ".join(pieces)


def truth(path: Path) -> np.ndarray:
    """All pairs (row, other row) with a similarity of at least `THRESHOLD`, each pair in both orders: (pairs, 2)."""
    numbers: dict[str, int] = {}
    word = re.compile(r"\w+")
    words, lengths = [], []
    for text in pq.read_table(path)["text"].to_pylist():
        found = [numbers.setdefault(one, len(numbers)) for one in word.findall(text.lower())]
        words.append(np.array([*found, *[-1] * (5 - len(found))], np.int64))
        lengths.append(len(words[-1]))
    rows = len(lengths)
    flat, owner = np.concatenate(words), np.repeat(np.arange(rows), lengths)
    gram = flat[: len(flat) - 4] + 1
    for place in range(1, 5):  # numbers for sequences of 2, 3, 4 and 5 words
        following = flat[place : len(flat) - 4 + place] + 1
        gram = np.unique(gram * (len(numbers) + 1) + following, return_inverse=True)[1]
    inside = owner[: len(gram)] == owner[4:]
    kinds = int(gram.max()) + 1
    entries = np.unique(owner[:-4][inside] * kinds + gram[inside])  # each sequence counts once in a row
    owner, gram = entries // kinds, entries % kinds
    sizes = np.bincount(owner, minlength=rows)
    by_gram = owner[np.argsort(gram, kind="stable")]  # the rows with the first sequence, then those with the second, …
    counts = np.bincount(gram)
    starts, ends = np.cumsum(counts) - counts, np.cumsum(sizes)
    found = []
    for first in range(0, rows, 20):
        last = min(first + 20, rows)
        block = gram[ends[first] - sizes[first] : ends[last - 1]]
        local = np.repeat(np.arange(first, last), sizes[first:last]) - first
        steps = np.arange(counts[block].sum()) - np.repeat(np.cumsum(counts[block]) - counts[block], counts[block])
        others = by_gram[np.repeat(starts[block], counts[block]) + steps]
        shared = np.bincount(np.repeat(local, counts[block]) * rows + others, minlength=(last - first) * rows)
        pairs = np.flatnonzero(shared)
        row, other = pairs // rows + first, pairs % rows
        similar = shared[pairs] / (sizes[row] + sizes[other] - shared[pairs])
        chosen = (similar >= THRESHOLD) & (row != other)
        found.append(np.stack([row[chosen], other[chosen]], axis=1))
    return np.concatenate(found)


@dataclass(frozen=True)
class Run:
    """One measurement of a tool."""

    seconds: float
    cpu: float
    peak_mb: float
    kept: np.ndarray


class Watch(threading.Thread):
    """Reads the peak memory and the CPU time of each process of a tree, twenty times a second, until the tree ends.
    `peak` is the largest memory, in bytes, and `cpu` the time of each process. The operating system's figures for an
    ended process are not used, because they include the memory of this program and leave out some child processes.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.tree, self.peak, self.cpu = psutil.Process(pid), 0, dict[int, float]()

    def run(self) -> None:
        with contextlib.suppress(psutil.Error, OSError):
            while self.tree.is_running():
                for process in [self.tree, *self.tree.children(recursive=True)]:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    found = re.search(r"VmHWM:\s+(\d+) kB", status)
                    self.peak = max(self.peak, 1024 * int(found[1]) if found else 0)
                    self.cpu[process.pid] = sum(process.cpu_times()[:2])
                time.sleep(0.05)


def install(tool: str) -> Path:
    """The path of Python in a tool's environment, which is created if it is missing. Raises CalledProcessError if the
    tool cannot be installed.
    """
    if not TOOLS[tool]:
        return Path(sys.executable)
    home = HOMES / f"near-{tool.split()[0]}"
    if not (home / ".ready").exists():
        print(f"{tool}: installing {' '.join(TOOLS[tool])}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "-q", "--disable-pip-version-check", "install", *TOOLS[tool]]
        subprocess.run(pip, check=True, stderr=subprocess.PIPE, text=True)
        (home / ".ready").touch()
    return home / "bin" / "python"


def measure(tool: str, python: Path, corpus: Path, last: int = 1) -> Run | str:
    """Runs a tool once. Returns the `last` lines of the tool's output if the tool fails."""
    name, *options = tool.split()
    script = ROOT / "benchmarks" / "rivals" / f"near_{name}.py"
    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "output").open("wb") as output:
        kept = Path(scratch) / "kept.parquet"
        environment = {**os.environ, "PYTHONPATH": str(ROOT) if name == "synthgen" else "", "HOME": scratch}
        began = time.monotonic()
        process = subprocess.Popen(
            [str(python), str(script), str(corpus), str(kept), *options],
            env=environment, cwd=scratch, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        watch = Watch(process.pid)
        watch.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            lines = (Path(scratch) / "output").read_text(errors="replace").splitlines()
            return "\n".join(lines[-last:]) or f"exit code {process.returncode}"
        ids = pq.read_table(kept)["id"].to_numpy()
        cpu = max(used.ru_utime + used.ru_stime, sum(watch.cpu.values()))
        return Run(seconds, cpu, watch.peak / 1e6, np.asarray(ids, np.int64))


def main() -> None:
    """Makes the corpora, runs the tools in turn, and prints a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="JSONL of {prompt, completion}, may end in .gz")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--tools", nargs="+", choices=TOOLS, default=[tool for tool in TOOLS if not tool.endswith("ray")]
    )
    options = parser.parse_args()
    pythons = {}
    for tool in options.tools:
        try:
            pythons[tool] = install(tool)
        except subprocess.CalledProcessError as error:
            print(
                f"{tool}: LEFT OUT, because it cannot be installed: {(error.stderr or str(error)).splitlines()[-1]}",
                flush=True,
            )
    parts = sentences(options.text) if options.text else [part for part in own_sentences() if part.isascii()]
    print(f"{len(parts):,} different sentences")
    with tempfile.TemporaryDirectory() as scratch:
        for count in options.rows:
            corpus = Path(scratch) / f"{count}.parquet"
            make(corpus, count, parts)
            began = time.monotonic()
            pairs = truth(corpus) if count <= 100_000 else None
            about = (
                f"{len(pairs) // 2:,} similar pairs, found in {time.monotonic() - began:.0f} s"
                if pairs is not None
                else ""
            )
            print(f"\n{count:,} rows, {corpus.stat().st_size / 1e6:.0f} MB; {about}", flush=True)
            print(f"{'tool':16}{'s':>8}{'docs/s':>10}{'CPU s':>8}{'MB':>8}{'kept':>10}{'lost':>8}{'twins left':>12}")
            runs: dict[str, list[Run]] = {}
            for _ in range(options.repeat):
                for tool, python in pythons.items():
                    run = measure(tool, python, corpus)
                    if isinstance(run, str):
                        print(f"{tool:16}failed: {run}", flush=True)
                    else:
                        runs.setdefault(tool, []).append(run)
            for tool, each in runs.items():
                print(line(tool, count, each, pairs), flush=True)


def line(tool: str, count: int, runs: list[Run], pairs: np.ndarray | None) -> str:
    """A line of the table: medians of the runs, and the quality of the last run."""
    seconds, cpu, peak = (
        statistics.median(getattr(run, name) for run in runs) for name in ("seconds", "cpu", "peak_mb")
    )
    kept = np.zeros(count, np.int32)
    kept[runs[-1].kept] = 1
    text = f"{tool:16}{seconds:8.1f}{count / seconds:10,.0f}{cpu:8.1f}{peak:8,.0f}{kept.sum():10,}"
    if pairs is None:
        return text
    # for each row: the number of kept rows that are similar to it
    near_kept = np.bincount(pairs[:, 0], kept[pairs[:, 1]], minlength=count)
    lost, left = int(((near_kept == 0) & (kept == 0)).sum()), int((near_kept * kept).sum()) // 2
    return text + f"{lost:8,}{left / max(1, len(pairs) // 2):12.6f}"


if __name__ == "__main__":
    main()
