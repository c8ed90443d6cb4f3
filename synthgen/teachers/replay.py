"""A teacher that replays recorded replies. A reply is found by the text of the prompt's last message.

A recording is a JSONL file of {"prompt", "text"} objects, or the folder of a corpus. If a prompt occurs several times,
its first reply is used. This engine is used in benchmarks and in tests of code that needs a teacher. The engine can
also replay replies that come from other sources.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import TeacherError
from synthgen.requests import Request
from synthgen.tables.engines import ReplayTeacher
from synthgen.teachers.base import Call, Identity, Refused, Reply, TeacherOptions
from synthgen.teachers.gate import admitted


class Replay:
    """A teacher that replays recorded replies (see `synthgen.teachers.base.RemoteTeacher`). `replies` maps the text of
    a prompt's last message to the reply.
    """

    paid = False
    can = frozenset({"sample"})

    def __init__(self, section: ReplayTeacher, replies: dict[str, str]) -> None:
        self.section, self.replies = section, replies
        self.identity: Identity = {
            "engine": "replay",
            "model": section.model,
            "revision": section.revision or "recorded",
            "dtype": "unknown",
            "tokenizer": "",
            "vocab_size": 0,
            "license": section.license,
        }

    @classmethod
    def open(cls, section: ReplayTeacher) -> Replay:
        """Read the recording. Raises TeacherError."""
        path = Path(section.path)
        if not path.exists():
            raise TeacherError(f"'{path}' does not exist", "change teacher.path in the recipe")
        try:
            return cls(section, _folder(path) if path.is_dir() else _jsonl(path))
        except (ValueError, KeyError, TypeError, OSError, pa.ArrowException) as error:
            raise TeacherError(
                f"'{path}' holds no recorded replies: {error}", "check the file that teacher.path names"
            ) from None

    def call(self, request: Request) -> Call:
        """The content for a request: the text of its last message. The reply is looked up by this text."""
        text = str(request.messages[-1]["content"])
        index = request.sampling.get("sample_index", 0)
        key = hashlib.blake2b(f"{self.section.path}\0{index}\0{text}".encode(), digest_size=20).digest()
        return Call(text.encode(), key, len(text) // 4, len(text), int(request.sampling["max_new_tokens"]))

    async def send(self, call: Call) -> bytes:
        """Wait for the latency in the recipe, and return the recorded reply. Raises Refused if there is no recorded
        reply.
        """
        if self.section.latency:
            await asyncio.sleep(self.section.latency)
        text = self.replies.get(call.payload.decode())
        if text is None:
            raise Refused("bad_request", "nothing was recorded for this prompt")
        return text.encode()

    def read(self, request: Request, body: bytes) -> Reply:
        """Make a reply from the recorded text."""
        return admitted(request, Reply(text=body.decode(errors="replace"), finish_reason="stop"))

    async def alive(self) -> bool:
        """Always True."""
        return True

    async def close(self) -> None:
        """Does nothing, because there is no connection."""


def _jsonl(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row: dict[str, Any] = json.loads(line)
            if not isinstance(row["prompt"], str) or not isinstance(row["text"], str):
                raise TypeError("'prompt' and 'text' must be texts")
            found.setdefault(row["prompt"], row["text"])
    return found


def _folder(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted((path / "data").glob("*.parquet")):
        for row in pq.read_table(file, columns=["prompt", "completion"]).to_pylist():
            found.setdefault(row["prompt"][-1]["content"], row["completion"][-1]["content"])
    return found


def open_replay(section: ReplayTeacher, options: TeacherOptions) -> Replay:
    """Read the recording. Raises TeacherError."""
    return Replay.open(section)
