"""A teacher that replays recorded replies."""

from __future__ import annotations

import asyncio
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.wire import request

from synthgen.errors import TeacherError
from synthgen.tables.engines import ReplayTeacher
from synthgen.teachers.base import Refused, TeacherOptions
from synthgen.teachers.replay import open_replay


def opened(path):
    return open_replay(ReplayTeacher(engine="replay", path=str(path), license="MIT"), TeacherOptions())


def asking(*texts: str, index: int = 0):
    messages = [{"role": "user", "content": text} for text in texts]
    return request()._replace(messages=messages, sampling={**request().sampling, "sample_index": index})


def replied(teacher, *texts: str) -> str:
    asked = asking(*texts)
    return teacher.read(asked, asyncio.run(teacher.send(teacher.call(asked)))).text


@pytest.fixture
def recorded(tmp_path):
    rows = [("one", "first"), ("zwölf", "zwölf Äpfel"), ("one", "second")]
    path = tmp_path / "replies.jsonl"
    lines = [json.dumps({"prompt": p, "text": t}, ensure_ascii=False) for p, t in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_first_reply_to_the_last_message_is_replayed(recorded):
    teacher = opened(recorded)
    assert replied(teacher, "one") == "first"
    assert replied(teacher, "one", "zwölf") == "zwölf Äpfel"
    with pytest.raises(Refused, match="nothing was recorded") as refused:
        replied(teacher, "two")
    assert (refused.value.kind, refused.value.retry) == ("bad_request", False)
    assert (teacher.paid, teacher.can, asyncio.run(teacher.alive())) == (False, {"sample"}, True)


def test_the_rows_of_a_corpus_are_replayed(tmp_path):
    def row(prompt, completion):
        return {"prompt": [{"content": "Help."}, {"content": prompt}], "completion": [{"content": completion}]}

    (tmp_path / "data").mkdir()
    for name, rows in {"b": [row("one", "second")], "a": [row("one", "first"), row("two", "deux")]}.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"{name}.parquet")
    assert [replied(opened(tmp_path), text) for text in ("one", "two")] == ["first", "deux"]


def test_a_call_states_about_how_many_tokens_it_has(recorded):
    call = opened(recorded).call(asking("A" * 40))
    assert (call.prompt_tokens, call.most_prompt, call.most_completion) == (10, 40, 16)
    assert (call.alternatives, call.token_ids) == (0, False)
    keys = {opened(recorded).call(asking(text, index=index)).key for text in "ab" for index in range(2)}
    assert len(keys) == 4


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "a"}',
        "[1]",
        "no json",
        '{"prompt": "a", "text": null}',
        '{"prompt": null, "text": "a"}',
        '{"prompt": "a", "text": ["b"]}',
    ],
)
def test_a_file_that_holds_no_replies_is_refused(tmp_path, text):
    path = tmp_path / "replies.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(TeacherError, match="holds no recorded replies"):
        opened(path)
    with pytest.raises(TeacherError, match="does not exist"):
        opened(tmp_path / "none.jsonl")
