"""Measures generation with an API teacher: requests or rows a second, CPU time for each request or row, memory, and how
the rate changes during a run.

    python benchmarks/api.py full   [--requests 5000] [--latency 0.2] [--in-flight 50 400] [--executor ray]
    python benchmarks/api.py rows   [--rows 1000000]          writes short rows from a replay teacher to disk
    python benchmarks/api.py logits [--rows 100000]           64 tokens with top-64, through cache and API, to disk
    python benchmarks/api.py loop   [--rows 200000]           the scheduler alone: sends and writes nothing

CPU time is the sum over all threads of this process. The server is tests/support/server.py in a separate process, so
its CPU time is not counted. With --executor ray, two workers on this machine send the requests, and the CPU time of the
workers is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.serving import KEY, Serving, write_recipe

import synthgen
from synthgen.generation.account import Account
from synthgen.generation.budget import Budget
from synthgen.generation.ledger import Spent
from synthgen.generation.limits import Limits
from synthgen.generation.prices import Prices
from synthgen.generation.scheduler import Scheduler
from synthgen.generation.work import Item
from synthgen.requests import Request
from synthgen.tables.engines import ENGINES
from synthgen.teachers.base import Call, Reply
from synthgen.teachers.openai import ApiModel
from synthgen.teachers.server_tokens import TokenMap
from synthgen.ui import UI, Progress


class Watch(Progress):
    """Records the time and the number of rows each time that rows are committed."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        super().__init__(what, total, unit)
        self.marks: list[tuple[float, int]] = []

    def show(self) -> None:
        if not self.marks or self.marks[-1][1] != self.done:
            self.marks.append((time.monotonic(), self.done))


class Watching(UI):
    """A UI that prints nothing and reports progress to a `Watch`."""

    @contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Progress]:
        """Yields a new `Watch`, and keeps it in `self.watch`."""
        self.watch = Watch(what, total, unit)
        yield self.watch


def end_to_start(marks: list[tuple[float, int]]) -> str:
    """The rate over the last quarter of the rows, divided by the rate over the first quarter. The first mark, which is
    the end of the first shard, is left out. With fewer than five marks there is no such rate.
    """
    marks = marks[1:]
    quarter = len(marks) // 4
    if not quarter:
        return "unknown, because there are fewer than five shards"

    def rate(a: int, b: int) -> float:
        return (marks[b][1] - marks[a][1]) / (marks[b][0] - marks[a][0])

    return f"{rate(-1 - quarter, -1) / rate(0, quarter):.2f}"


def peak() -> float:
    """Peak resident memory of this process in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def full(folder: Path, requests: int, latency: float, in_flight: list[int], executor: str = "local") -> None:
    """Measures two things: the rate as a share of the ideal rate at this latency, and the CPU time of a request."""
    for number, limit in enumerate([8, *in_flight]):  # run 0 is a warm-up
        server = Serving(latency=latency)
        count = requests if number else 64
        teacher = {"max_in_flight": limit, "timeout": 60}
        path = write_recipe(folder / f"task{number}", server.url, count, {"shard_size": 256}, teacher)
        recipe = synthgen.load_recipe(path)
        cpu, began = time.process_time(), time.monotonic()
        synthgen.generate(recipe, folder / f"run{number}", executor=executor, workers=2, ui=UI(quiet=True))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        stats = server.stats()
        server.stop()
        if number:
            ideal = count / limit * latency
            print(
                f"full: {count} requests, {latency * 1e3:.0f} ms, {limit} in flight "
                f"(reached {stats['most_in_flight']}): {seconds:.1f} s, "
                f"{count / seconds:.0f} requests/s, {ideal / seconds:.2f} of the ideal rate, "
                f"{ideal / stats['seconds']:.2f} of it from the server's first request to its last answer, "
                f"{cpu / count * 1e6:.0f} µs CPU a request"
            )


def rows(folder: Path, count: int) -> None:
    """Generates `count` rows with a replay teacher, which gives short recorded replies."""
    each = 10
    task = folder / "task"
    path = write_recipe(task, "http://127.0.0.1:1/v1", count // each, {"num_generations": each, "shard_size": 4096})
    with (task / "replies.jsonl").open("w") as file:
        for i in range(count // each):
            file.write(json.dumps({"prompt": f"What is {i}?", "text": f"It is {i}, of course."}) + "\n")
    import yaml

    values = yaml.safe_load(path.read_text())
    values["teacher"] = {"engine": "replay", "path": str(task / "replies.jsonl"), "license": "CC0-1.0"}
    path.write_text(yaml.safe_dump(values))
    report("rows", synthgen.load_recipe(path), folder, count)


def logits(folder: Path, count: int, tokens: int = 64, k: int = 64) -> None:
    """Generates `count` rows with the API teacher, its cache and its scheduler. The replies are recorded chat
    completions with logprobs.
    """
    teacher = {"max_in_flight": 64, "tokenizer": "recorded"}
    path = write_recipe(
        folder / "task",
        "http://127.0.0.1:1/v1",
        count,
        {"shard_size": 256, "max_new_tokens": tokens},
        teacher,
        logits={"kind": "topk", "k": k},
    )
    recipe = synthgen.load_recipe(path)
    draw = random.Random(0)
    bodies = [completion(draw, tokens, k) for _ in range(32)]
    print(f"logits: a reply is {len(bodies[0]):,} bytes of JSON")

    class Recorded(ApiModel):
        async def send(self, call: Call) -> bytes:
            await asyncio.sleep(0)
            return bodies[call.key[0] % len(bodies)]

    map_ = TokenMap.__new__(TokenMap)
    map_.tokenizer, map_.hash, map_.size = SimpleNamespace(chat_template=None), "recorded", 49152
    map_.by_text = {f"t{i}": i for i in range(49152)}
    map_.by_bytes = {text.encode(): i for text, i in map_.by_text.items()}
    opens = lambda section, options: Recorded(section, options, "key", map_)  # noqa: E731
    ENGINES["openai"] = replace(ENGINES["openai"], opens=opens)
    report("logits", recipe, folder, count)


def completion(draw: random.Random, tokens: int, k: int) -> bytes:
    """The JSON of a chat completion, as a server sends it: `tokens` random tokens with top-`k` logprobs."""
    content = []
    for _ in range(tokens):
        logprob, top = -0.3, []
        for i in draw.sample(range(49152), k):
            top.append({"token": f"t{i}", "logprob": round(logprob, 6), "bytes": list(f"t{i}".encode())})
            logprob -= draw.random() * 0.5
        content.append({**top[0], "top_logprobs": top})
    text = "".join(entry["token"] for entry in content)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
    return json.dumps({"choices": [{**choice, "logprobs": {"content": content}}], "usage": usage}).encode()


def report(what: str, recipe: synthgen.Recipe, folder: Path, count: int) -> None:
    """Runs `generate` on the recipe, and prints rate, CPU time, memory, and the change of the rate during the run."""
    ui = Watching(quiet=True)
    cpu, began = time.process_time(), time.monotonic()
    synthgen.generate(recipe, folder / "run", ui=ui)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    disk = sum(p.stat().st_size for p in (folder / "run").rglob("*.parquet"))
    print(
        f"{what}: {count:,} rows in {seconds:.0f} s, {count / seconds:,.0f} rows/s, "
        f"{cpu / count * 1e6:.0f} µs CPU a row, which includes reading seeds and writing {disk / count:.0f} B a row; "
        f"peak {peak():.2f} GB; rate at the end / rate at the start {end_to_start(ui.watch.marks)}"
    )


def loop(count: int) -> None:
    """Measures the scheduler alone, with a teacher that answers without delay."""

    class Echo:
        paid = False
        identity = {"model": "echo", "engine": "replay"}

        async def send(self, call: Call) -> bytes:
            return b"answer"

        def read(self, request: Request, body: bytes) -> Reply:
            return reply

    reply = Reply(text="answer", finish_reason="stop")
    request = Request("sample", [])
    marks = [(time.monotonic(), 0), (time.monotonic(), 0)]

    class Numbers:
        """The scheduler's `Work`: `count` requests. Records the time after each eighth of the answers."""

        def __init__(self) -> None:
            self.taken = self.done = 0

        @property
        def finished(self) -> bool:
            return self.taken == count

        def take(self, teacher: str) -> Item | None:
            if self.taken == count:
                return None
            self.taken += 1
            return Item((None, self.taken), request, Call(b"", self.taken.to_bytes(8), 10, 100, 16))

        def deliver(self, item: Item, reply: Reply) -> None:
            self.done += 1
            if self.done % (count // 8) == 0:
                marks.append((time.monotonic(), self.done))

    account = Account(Echo(), None, budget=Budget(None, None, Spent()), prices=Prices(0, 0, 0), ledger=None)
    scheduler = Scheduler("echo", Numbers(), account, Limits(max_in_flight=64, rpm=10**9, tpm=10**11))
    cpu = time.process_time()
    asyncio.run(scheduler.run())
    cpu = time.process_time() - cpu
    print(
        f"loop: {count:,} requests, {cpu / count * 1e6:.1f} µs CPU each; "
        f"rate at the end / rate at the start {end_to_start(marks)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["full", "rows", "logits", "loop"])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[50, 400])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--executor", default="local")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="api-"))
    os.environ["SYNTHGEN_CACHE"], os.environ["LOOPBACK_KEY"] = str(folder / "cache"), KEY
    try:
        if given.what == "full":
            full(folder, given.requests, given.latency, given.in_flight, given.executor)
        elif given.what == "rows":
            rows(folder, given.rows or 1_000_000)
        elif given.what == "logits":
            logits(folder, given.rows or 100_000)
        else:
            loop(given.rows or 200_000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
