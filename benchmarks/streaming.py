"""Measures training that reads a corpus as a stream: memory, waiting time and disk space for small and large corpora,
and tokens a second.

    python benchmarks/streaming.py [--rows 10000 1000000] [--steps 100] [--pairs 5] [--revision 199c186]

Memory: for each number of rows, a corpus with 100 completion tokens a row and 50 draws a token is written. A new
process makes the cache from which training on this corpus reads its rows. The process then takes optimizer steps of 16
rows, which are drawn from all rows. The columns are:

- opened: the peak resident memory of the process (VmHWM) after the cache is made and before training.
- peak: the peak resident memory at the end of training.
- more (two columns): the figure in the column to the left, minus the same figure for the first corpus.
- wait: the milliseconds that a step waits for its rows.
- again: the seconds that it takes to open the same corpus again, when its cache already exists.

Rate: this source tree and another revision take turns to train the same student on the same corpus, each in a new
process. The student is a Llama with 4 layers, width 256 and SmolLM2's vocabulary. The rate is the number of tokens a
second in all steps but the first, by wall time and by CPU time. A bootstrap over the pairs of runs gives the interval
of the ratio of the two rates. `--pairs 0` leaves out the measurement of the rate. All files are deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from streaming_corpus import VOCABULARY, opened, streams, write_corpus

ROOT = Path(__file__).parent.parent
BATCH = 16
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4}


# Functions that run in the new processes


def student(sizes: dict[str, int]) -> Any:
    """A Llama with random weights and the teacher's vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    values = {"num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 512}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **values, **sizes))


def learning(model: Any, meta: Any, rows: int) -> tuple[Any, Any]:
    """Returns (section `train` of a recipe, objective that trains `model`). `rows` is the number of rows in a
    micro-batch.
    """
    if streams():
        from distill.targets.stored import FromStored
        from synthgen.recipe import TrainSection

        section = TrainSection(batch_size=BATCH, micro_batch_size=rows, save_steps=10**6)
        return section, FromStored(model, section, meta)
    from distill.objective import FromShards
    from synthgen.training import TrainSection as OldSection

    old = OldSection(batch_size=BATCH, micro_batch=rows, checkpoint_every=10**6)
    return old, FromShards(model, meta, old)


def train(run: Path, meta: Any, batch_of: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Runs optimizer steps on the rows of `batch_of(step)`. Returns rates, milliseconds of waiting in a step, and
    losses.
    """
    import torch

    from distill.loop import Checkpoints, accelerator_of, fit
    from synthgen.ui import Progress

    section, objective = learning(student(SMALL if options.small else TINY), meta, options.micro_batch)
    waited, times = [], [(time.perf_counter(), time.process_time())]

    def timed(step: int) -> list[Any]:
        began = time.perf_counter()
        rows = batch_of(step)
        waited.append(time.perf_counter() - began)
        return rows

    class Clock(Progress):
        def advance(self, count: int, **more: Any) -> None:
            if count:
                times.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory(dir=run) as scratch:
        metrics = fit(
            objective,
            timed,
            section,
            options.steps,
            Checkpoints(Path(scratch), "arm"),
            Clock("train", options.steps, "steps"),
            accelerator=accelerator_of(section, torch.device("cpu"), run),
        )
    tokens = sum(int(row["tokens"]) for row in metrics[1:])
    (began, cpu_began), (ended, cpu_ended) = times[1], times[-1]
    return {
        "tokens_per_second": tokens / (ended - began),
        "tokens_per_cpu_second": tokens / (cpu_ended - cpu_began),
        "wait_ms": 1e3 * statistics.mean(waited[1:]),
        "losses": [row["loss"] for row in metrics],
    }


def streamed(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Makes the cache, opens it again, and trains from the stream."""
    from distill.data import Choice
    from distill.streaming.batches import Ahead, Order
    from distill.streaming.conversations import reader_of
    from distill.streaming.stream import open_stream
    from distill.tokenizer import written_with

    tokens = opened()
    reader = reader_of(tokens, written_with(run / "curated", tokens))
    began = time.perf_counter()
    stream = open_stream(run / "curated", reader, run / "cache", Choice(512))
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    stream = open_stream(run / "curated", reader, run / "cache", Choice(512))
    again, opening = time.perf_counter() - began, peak()
    assert len(stream) == options.rows[0]
    order = Order(len(stream), BATCH, 0)
    with Ahead(lambda step: stream.batch(order.rows(step)), options.steps) as batch_of:
        found = train(run, stream.meta, batch_of, options)
    size = sum(path.stat().st_size for path in (run / "cache").rglob("*") if path.is_file())
    return {"build_s": seconds, "again_s": again, **found, "opened": opening, "peak": peak(), "cache": size}


def loaded(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trains with the corpus in memory, as revision 199c186 does."""
    from distill.data import batch_rows, load

    teacher = opened()
    began = time.perf_counter()
    data = load(run / "curated", teacher.render, 512)
    seconds = time.perf_counter() - began

    def batch_of(step: int) -> list[Any]:
        return [data.examples[i] for i in batch_rows(step, len(data.examples), BATCH, 0)]

    found = train(run, data.meta, batch_of, options)
    return {"build_s": seconds, **found, "peak": peak()}


def peak() -> int:
    """The peak resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


# The tables


def child(what: str, run: Path, rows: int, options: argparse.Namespace, tree: Path = ROOT) -> dict[str, Any]:
    """Runs the job `what` ("write", "streamed" or "loaded") of this file in a new process, which imports the packages
    of the source tree `tree`. Returns the job's measurements.
    """
    command = [sys.executable, __file__, "--child", what, "--run", str(run), "--rows", str(rows)]
    command += ["--steps", str(options.steps), "--micro-batch", str(options.micro_batch)]
    command += ["--small"] if options.small else []
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(tree), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{what}: {done.stderr[-3000:]}")
    print(f"{what}, {rows:,} rows: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory(scratch: Path, options: argparse.Namespace) -> None:
    """Prints a line for each size of corpus."""
    names = {"build s": 8, "again s": 8, "opened MB": 9, "more MB": 8, "peak MB": 8, "more": 8, "wait ms": 8}
    names |= {"cache MB": 9, "B/row": 6}
    print(f"{'rows':>9}", *(f"{name:>{width}}" for name, width in names.items()), flush=True)
    first: dict[str, Any] = {}
    for rows in options.rows:
        run = scratch / f"run-{rows}"
        child("write", run, rows, options)
        found = child("streamed", run, rows, options)
        shutil.rmtree(run)
        first = first or found
        values = [found["build_s"], found["again_s"]]
        values += [size / 1e6 for key in ("opened", "peak") for size in (found[key], found[key] - first[key])]
        values += [found["wait_ms"], found["cache"] / 1e6, found["cache"] / rows]
        digits = [1, 1, 0, 0, 0, 0, 2, 0, 0]
        cells = zip(values, names.values(), digits, strict=True)
        print(f"{rows:9,}", *(f"{value:{width}.{digit}f}" for value, width, digit in cells), flush=True)


def pairs(scratch: Path, options: argparse.Namespace) -> None:
    """Prints the ratio of two rates: the tokens a second with this source tree, divided by the tokens a second with the
    other revision.
    """
    tree = scratch / "revision"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", options.revision], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=tree, input=archive, check=True)
    ours, theirs = scratch / "ours", scratch / "theirs"
    child("write", ours, options.pair_rows, options)
    child("write", theirs, options.pair_rows, options, tree)
    options.small = True
    child("streamed", ours, options.pair_rows, argparse.Namespace(**{**vars(options), "steps": 2}))
    results = []
    for _ in range(options.pairs):
        new = child("streamed", ours, options.pair_rows, options)
        old = child("loaded", theirs, options.pair_rows, options, tree)
        if not np.allclose(new["losses"], old["losses"], rtol=1e-6, atol=0):  # other rows give differences of 1e-4
            raise SystemExit("the losses of the two versions differ, so the students did not learn from the same rows")
        results.append((new, old))
    print(f"\nthis tree and {options.revision} on {options.pair_rows:,} rows, {len(results)} pairs, the same losses")
    for key, what in (("tokens_per_second", "tokens/s"), ("tokens_per_cpu_second", "tokens/s of CPU")):
        ratios = [new[key] / old[key] for new, old in results]
        drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios))).mean(-1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        mine, its = (statistics.median(pair[side][key] for pair in results) for side in (0, 1))
        print(f"{what:16} {mine:7.0f} {its:7.0f}   ratio {np.mean(ratios):.3f} [{low:.3f}, {high:.3f}]")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--micro-batch", type=int, default=BATCH)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pair-rows", type=int, default=4000)
    parser.add_argument("--revision", default="199c186")
    parser.add_argument("--small", action="store_true", help="the larger of the two students")
    parser.add_argument("--scratch", type=Path, help="folder for the corpora, up to 10 GB; default: a temporary folder")
    parser.add_argument("--child", choices=["write", "streamed", "loaded"], help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "write":
        write_corpus(options.run, options.rows[0])
        print("{}")
    elif options.child:
        print(json.dumps({"streamed": streamed, "loaded": loaded}[options.child](options.run, options)))
    else:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            if options.rows[0]:
                memory(Path(scratch), options)
            if options.pairs:
                pairs(Path(scratch), options)


if __name__ == "__main__":
    main()
