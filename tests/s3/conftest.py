"""S3 on this machine: moto's server, and a proxy before it that fails, delays and kills as a test says."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from support.places import REPOSITORY

SECRET = "a-secret-that-no-file-may-hold"
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_RUN = (
    "import sys; from synthgen.stores import lease; lease.BEAT, lease.SILENCE = 0.5, 2.0; "
    "from {package}.cli import main; main(sys.argv[1:])"
)


class Proxy:
    """Forwards requests to the server. `fault` gets (method, path, number of the request) and returns a status with
    which the request fails, a number of seconds to wait, or None. `kill` is (pid, n, when): the process is killed
    before or after its n-th PUT or DELETE reaches the server.
    """

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.fault = lambda method, path, number: None
        self.kill: tuple[int, int, str] | None = None
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
        self.fault, self.kill, self.writes = lambda method, path, number: None, None, []
        self.requests = self.failed = 0

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Expect"):
            request.send_response_only(100)
            request.end_headers()
        body = _body(request)
        with self.lock:
            self.requests += 1
            number, kill = self.requests, None
            if request.command in ("PUT", "DELETE", "POST"):
                self.writes.append(f"{request.command} {request.path.partition('?')[0]}")
                if self.kill and len(self.writes) == self.kill[1]:
                    kill = self.kill
            fault = self.fault(request.command, request.path, number)
        if kill and kill[2] == "before":
            os.kill(kill[0], signal.SIGKILL)
            return
        if isinstance(fault, int):
            self.failed += 1
            _reply(request, fault, {"Content-Type": "application/xml"}, SLOW_DOWN)
            return
        if fault:
            time.sleep(fault)
        connection = http.client.HTTPConnection("127.0.0.1", self.server_port)
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


@pytest.fixture(scope="session")
def proxy():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield Proxy(server.get_host_and_port()[1])
    server.stop()


@pytest.fixture
def s3(proxy, monkeypatch, tmp_path):
    """A file system of S3 with the empty bucket `bucket`. The credentials are in the environment."""
    import s3fs

    proxy.reset()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": proxy.url,
        "SYNTHGEN_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    else:
        files.mkdir("bucket")
    proxy.reset()
    return files


def start(words: list[str | Path], machine: Path) -> subprocess.Popen[str]:
    """Start a command with the cache of another machine. A lease without a sign of life lasts two seconds."""
    environment = {**os.environ, "SYNTHGEN_CACHE": str(machine), "OMP_NUM_THREADS": "1", "PYTHONPATH": _path()}
    code = _RUN.format(package=words[0])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words[1:])],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )


def command(words: list[str | Path], machine: Path) -> tuple[int, str]:
    """Run a command to its end: (exit code, output)."""
    process = start(words, machine)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def _path() -> str:
    return os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])


def objects(s3, prefix: str) -> dict[str, bytes]:
    """The objects below `bucket/PREFIX` by their names, without leases."""
    root = f"bucket/{prefix}/"
    return {p[len(root) :]: s3.cat_file(p) for p in s3.find(root) if ".writer/" not in p}
