"""A proxy in front of the server of an object store, and commands in forks. A test tells the proxy which requests fail
or are delayed, and when it kills a process.

proxy.fault = lambda name, number: 503 if number % 5 == 0 else None
code, output = command(["synthgen", "show", "s3://bucket/run"], tmp_path / "machine")
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
import time
import types
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.killing import IMPORTS as KILLING_IMPORTS
from support.remote_servers import Server


class Proxy:
    """Forwards requests to the server. `fault` gets (the name of the object that the request writes or deletes, or '';
    the number of the request) and returns a status with which the request fails, a number of seconds to wait, or None.
    `kill` is (pid, n, when): the process is killed before or after its n-th write reaches the server. Instead of n,
    `kill` may hold the end of an object's name. `writes` are the names of the objects.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.fault = lambda name, number: None
        self.kill: tuple[int, int | str, str] | None = None
        self.writes: list[str] = []
        self.requests = self.failed = 0
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                try:
                    proxy.handle(self)
                except (ConnectionError, BrokenPipeError):
                    self.close_connection = True

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def reset(self) -> None:
        self.fault, self.kill, self.writes = lambda name, number: None, None, []
        self.requests = self.failed = 0

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Expect"):
            request.send_response_only(100)
            request.end_headers()
        body = _body(request)
        if own := self.server.answer(request.path):
            _reply(request, 200, {"Content-Type": own[0]}, own[1])
            return
        name = self.server.written(request.command, request.path, body)
        with self.lock:
            self.requests += 1
            number, kill = self.requests, None
            if name:
                self.writes.append(name)
                if self.kill and (len(self.writes) == self.kill[1] or name.endswith(str(self.kill[1]))):
                    kill = self.kill
            fault = self.fault(name, number)
        if kill and kill[2] == "before":
            os.kill(kill[0], signal.SIGKILL)
            return
        if isinstance(fault, int):
            self.failed += 1
            kind, data = self.server.failure(fault)
            _reply(request, fault, {"Content-Type": kind}, data)
            return
        if fault:
            time.sleep(fault)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("expect", "transfer-encoding")}
        connection.request(request.command, request.path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        data = answer.read()
        if kill:
            os.kill(kill[0], signal.SIGKILL)
            return
        _reply(request, answer.status, dict(answer.getheaders()), data, int(answer.headers.get("Content-Length", 0)))


def _body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    data = b""
    while size := int(request.rfile.readline().split(b";")[0], 16):
        data += request.rfile.read(size)
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass
    return data


def _reply(request, status: int, headers: dict[str, str], data: bytes, length: int | None = None) -> None:
    request.send_response_only(status)
    for name, value in headers.items():
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            request.send_header(name, value)
    request.send_header("Content-Length", str(length if request.command == "HEAD" and length else len(data)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(data)


_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["support.remote", "s3fs", "gcsfs.core", "adlfs", *KILLING_IMPORTS])
_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")


@dataclass
class Command:
    """A command that runs in a separate process. Its output goes to a file."""

    process: multiprocessing.process.BaseProcess
    file: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def wait(self, seconds: float = 300) -> tuple[int | None, str]:
        """(exit code, output) when the command has ended. The code is negative after a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.file.read_text()
        return self.process.exitcode, self.file.read_text()


def start(words: list[str | Path], machine: Path) -> Command:
    """Start a command with the cache of a machine. A lease that is not renewed ends after two seconds. The process is a
    fork of a process that has imported everything, so that a trial takes tenths of a second.
    """
    machine.mkdir(parents=True, exist_ok=True)
    file = machine / f"output-{time.monotonic_ns()}"
    environment = {k: v for k, v in os.environ.items() if k.startswith(_VARIABLES)}
    environment |= {"SYNTHGEN_CACHE": str(machine), "OMP_NUM_THREADS": "1"}
    process = _forks.Process(target=_run, args=([str(word) for word in words], environment, str(file)))
    process.start()
    return Command(process, file)


def _run(words: list[str], environment: dict[str, str], file: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    hasten()
    importlib.import_module(f"{words[0]}.cli").main(words[1:])


def hasten() -> None:
    """Shorten the waits: of another machine for a lease, and of the libraries before they repeat a request."""
    import gcsfs.retry
    from azure.storage.blob._shared.policies_async import ExponentialRetry

    from synthgen.stores import lease

    lease.BEAT, lease.SILENCE = 0.5, 2.0
    gcsfs.retry.asyncio = types.SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 20))
    ExponentialRetry.get_backoff_time = lambda self, settings: 0.1


def command(words: list[str | Path], machine: Path) -> tuple[int | None, str]:
    """Run a command to its end: (exit code, output)."""
    return start(words, machine).wait()


def objects(files: Any, prefix: str) -> dict[str, bytes]:
    """The objects below `bucket/PREFIX` by their names, without leases."""
    root = f"bucket/{prefix}/"
    files.invalidate_cache()
    return {p[len(root) :]: files.cat_file(p) for p in files.find(root) if ".writer/" not in p}
