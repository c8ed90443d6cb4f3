"""Runs and kills commands in forks of one process that has imported everything. So a trial takes only tenths of a
second.

    server = Server()
    server.run(["synthgen", "generate", recipe, "-o", run], cut=(7, "before"))   # SIGKILL before the 8th call
    server.run(["synthgen", "generate", recipe, "-o", run])                      # not killed

`python killing.py FD… MODULE…` starts the server's process. The server reads one request a line from its sockets, and
answers each request with one line. Each command is a real process that calls the command's own function and is killed
by a real SIGKILL. `fault` breaks a promise of the package on purpose, to show that the tests detect it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HOOKED = ("fsync", "replace", "rename", "unlink", "rmdir")  # functions of `os` that name, delete or sync a file
IMPORTS = (
    "aiohttp",
    "jinja2.ext",
    "pandas",
    "peft",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "safetensors.numpy",
    "safetensors.torch",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5",
    "transformers.masking_utils",
    "matplotlib.pyplot",
    "synthgen.auditing.license",
    "synthgen.cli",
    "synthgen.curation.answers",
    "synthgen.curation.duplicates",
    "synthgen.curation.held_out",
    "synthgen.curation.refusals",
    "synthgen.curation.text",
    "synthgen.display",
    "synthgen.generation.plan",
    "synthgen.generation.strategies.single",
    "synthgen.pipeline",
    "synthgen.reporting.plots",
    "synthgen.reporting.tables",
    "synthgen.generation.remote",
    "synthgen.teachers.local",
    "synthgen.teachers.openai",
    "synthgen.teachers.transformers",
    "distill.students.classifier_train",
    "distill.cli",
    "distill.evaluation.answers",
    "distill.evaluation.classifiers",
    "distill.evaluation.evaluate",
    "distill.evaluation.similarity",
    "distill.evaluation.texts",
    "distill.students.decoder",
    "distill.students.encoder",
    "distill.targets.live",
    "distill.students.sentence",
    "distill.students.seq2seq",
    "distill.training",
)
_WARMED = "warmed"  # this file's folder is in the path of the server's process
# A fork does not have the threads of its parent, so libraries must not start pools of threads.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command.

    `code` is the exit code, or the negative number of the signal. `calls` are the command's calls of the functions in
    `HOOKED`, if the process ended by itself. `orphans` are the ids of processes that the command left behind.
    """

    code: int
    seconds: float
    calls: list[str]
    output: str
    orphans: list[int]


class Server:
    """A process that runs each command in a fork of itself. `lanes` is the maximum number of commands at the same time.
    `close` ends the process.

    `imports` are the commands, and the modules that the commands import when they are used. The process imports all
    these modules once, so that no fork has to import them.
    """

    def __init__(self, lanes: int = min(2, os.cpu_count() or 1), imports: Iterable[str] = IMPORTS) -> None:
        pairs = [socket.socketpair() for _ in range(lanes)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *(str(there.fileno()) for _, there in pairs), *imports, _WARMED],
            pass_fds=[there.fileno() for _, there in pairs],
            env={**os.environ, **ONE_THREAD, "TOKENIZERS_PARALLELISM": "false"},
        )
        self.lanes: queue.Queue[Any] = queue.Queue()
        for here, there in pairs:
            there.close()
            self.lanes.put(here.makefile("rw"))
            here.close()
        self.pool = ThreadPoolExecutor(lanes)

    def run(
        self,
        command: list[Any],
        *,
        cut: tuple[int, str] | None = None,
        after: float | None = None,
        once: Path | None = None,
        patience: float = 2.0,
        fault: str = "",
    ) -> Outcome:
        """Runs a command to its end, or kills it.

        `cut=(n, "before")` kills the process before its call number n of a function in `HOOKED`, and "after" kills it
        after that call. `after=s` kills the process after s seconds. With `once`, the seconds count from the moment
        when the file `once` exists. Processes of the command that are still alive `patience` seconds after its end
        count as orphans.
        """
        request = {
            "command": [str(part) for part in command],
            "cut": cut,
            "after": after,
            "once": str(once) if once else None,
            "patience": patience,
            "fault": fault,
        }
        lane = self.lanes.get()
        try:
            lane.write(json.dumps(request) + "\n")
            lane.flush()
            line = lane.readline()
        finally:
            self.lanes.put(lane)
        assert line, "the server ended"
        return Outcome(**json.loads(line))

    def map(self, act: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Calls `act` for each item, with up to `lanes` calls at the same time."""
        return list(self.pool.map(act, items))

    def close(self) -> None:
        """Ends the process and waits until it has ended."""
        self.pool.shutdown()
        while not self.lanes.empty():
            self.lanes.get().close()
        assert self.process.wait(timeout=30) == 0


def left_behind(session: int, patience: float = 2.0) -> list[int]:
    """The ids of a session's processes that do not end within `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        alive = [pid for pid in psutil.pids() if _session(pid) == session and _alive(pid)]
        if not alive or time.monotonic() > until:
            return alive
        time.sleep(0.05)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def serve(sockets: list[int], imports: list[str]) -> None:
    """Imports all modules, then serves each socket in a fork."""
    import torch

    torch.set_num_threads(1)
    for name in imports:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # `freeze` keeps forks from copying the memory pages of these objects
    lanes = [socket.socket(fileno=number) for number in sockets]
    for lane in lanes:
        if os.fork() == 0:
            for other in lanes:
                if other is not lane:
                    other.close()
            _take_requests(lane)
            os._exit(0)
    for lane in lanes:
        lane.close()
    for _ in lanes:
        os.wait()


def _take_requests(lane: socket.socket) -> None:
    with lane, lane.makefile("r") as requests, lane.makefile("w") as replies:
        for line in requests:
            request = json.loads(line)
            with tempfile.TemporaryDirectory() as scratch:
                output, calls = Path(scratch) / "output", Path(scratch) / "calls"
                began = time.monotonic()
                child = os.fork()
                if child == 0:
                    _child(request, output, calls)
                if request["after"] is not None:
                    _kill_after(child, request["after"], request["once"])
                _, status = os.waitpid(child, 0)
                outcome = {
                    "code": os.waitstatus_to_exitcode(status),
                    "seconds": time.monotonic() - began,
                    "calls": json.loads(calls.read_text()) if calls.exists() else [],
                    "output": output.read_text() if output.exists() else "",
                    "orphans": left_behind(child, request["patience"]),
                }
            replies.write(json.dumps(outcome) + "\n")
            replies.flush()


def _kill_after(child: int, seconds: float, once: str | None) -> None:
    """Sends SIGKILL after some seconds, unless the child has already ended. The clock starts when the file `once`
    exists.
    """
    until = None if once else time.monotonic() + seconds
    while until is None or (left := until - time.monotonic()) > 0:
        if until is None:
            until, left = time.monotonic() + seconds if Path(once).exists() else None, 0.002
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(min(left, 0.002))
    os.kill(child, signal.SIGKILL)


def _child(request: dict[str, Any], output: Path, calls: Path) -> None:
    """Runs the command and ends the process. Never returns."""
    code = 70
    try:
        os.setsid()  # all descendants are in this session, so `left_behind` can find them
        log = os.open(output, os.O_WRONLY | os.O_CREAT)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        hooked_calls: list[str] = []
        _hook(hooked_calls, request["cut"])
        if request["fault"]:
            FAULTS[request["fault"]]()
        code = _command(request["command"])
        calls.write_text(json.dumps(hooked_calls))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _command(command: list[str]) -> int:
    import distill.cli
    import synthgen.cli

    main = {"synthgen": synthgen.cli.main, "distill": distill.cli.main}[command[0]]
    try:
        main(command[1:], standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _hook(calls: list[str], cut: list[Any] | None) -> None:
    """Records each call of a function in `HOOKED` in `calls`. `cut` is (number of a call, "before" or "after"): the
    process is killed before or after this call.
    """
    (number, side), hooked_pid = cut or (-1, ""), os.getpid()

    def hooked(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() != hooked_pid:  # in a child of this process, calls are neither recorded nor cut
                return act(*args, **kwargs)
            calls.append(name)
            here = len(calls) - 1 == number
            if here and side == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return act(*args, **kwargs)
            finally:
                # kill the process also after a call that raised an error, such as the unlink of a file that is not
                # there
                if here:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in HOOKED:
        setattr(os, name, hooked(name, getattr(os, name)))


def _plain_write() -> None:
    """Breaks durable writes: files are written in place, in two halves."""
    from synthgen import durable

    def write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for half in (data[: len(data) // 2], data[len(data) // 2 :]):
                file.write(half)
                file.flush()
                os.fsync(file.fileno())

    durable.write_bytes = write


def _data_first() -> None:
    """Breaks the order of a commit: a shard's data file is written before its other files."""
    from synthgen import corpus, durable

    commit, whole = corpus.commit, durable.write_bytes

    def backwards(folder: Path, name: str, tables: dict[str, Any], *more: Any) -> None:
        writes: list[tuple[Path, bytes]] = []
        durable.write_bytes = lambda path, data: writes.append((path, data))
        try:
            commit(folder, name, tables, *more)
        finally:
            durable.write_bytes = whole
        for path, data in reversed(writes):
            whole(path, data)

    corpus.commit = backwards


def _no_sweep() -> None:
    """Breaks the cleanup: files with temporary names stay."""
    from synthgen import durable

    durable.sweep = lambda *args: None


def _forgets() -> None:
    """Breaks resuming: committed shards are generated again."""
    from synthgen import corpus

    corpus.committed = lambda folder, parts=(): set()


def _manifest_first() -> None:
    """Breaks the order in which a corpus is finished: the card is now written after the manifest instead of before
    it."""
    from synthgen import cards, corpus, durable

    write, late = durable.write_json, []
    corpus.write_dataset_card = lambda *args: late.append(args)

    def write_json(path: Path, value: Any) -> None:
        write(path, value)
        while late and path.name == "manifest.json":
            cards.write_dataset_card(*late.pop())

    durable.write_json = write_json


def _no_moments() -> None:
    """Breaks checkpoints: the optimizer's state is lost."""
    from distill import loop

    restored = loop._Trainer.restored

    def weights_alone(self: Any, checkpoints: Any) -> Any:
        found = restored(self, checkpoints)
        self.optimizer.state.clear()
        return found

    loop._Trainer.restored = weights_alone


def _no_checkpoints() -> None:
    """Breaks resuming: checkpoints are not read."""
    from distill import loop

    loop._Trainer.restored = lambda self, checkpoints: (0, [])


def _forgets_texts() -> None:
    """Breaks checkpoints of on-policy training: the student's texts are not restored."""
    from distill.targets import live as online

    online.OnPolicy.restore = lambda self, state: None


def _leaves_a_child() -> None:
    """Leaves a process that outlives its parent."""
    subprocess.Popen(["sleep", "30"])


def _engine_stays() -> None:
    """Breaks the tie between vLLM's engine and its parent: the engine survives."""
    from contextlib import nullcontext

    from synthgen.teachers.vllm import engine as vllm_engine

    vllm_engine.children_follow = lambda config: nullcontext()


FAULTS = {
    "plain write": _plain_write,
    "data first": _data_first,
    "no sweep": _no_sweep,
    "forgets shards": _forgets,
    "manifest first": _manifest_first,
    "no moments": _no_moments,
    "no checkpoints": _no_checkpoints,
    "forgets texts": _forgets_texts,
    "leaves a child": _leaves_a_child,
    "engine stays": _engine_stays,
}


if __name__ == "__main__":
    serve([int(n) for n in sys.argv[1:] if n.isdigit()], [name for name in sys.argv[1:] if not name.isdigit()])
