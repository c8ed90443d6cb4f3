"""How an API teacher's replies are read: reasoning, structured output, tools, log-probabilities, labels."""

from __future__ import annotations

import contextlib
import gc
import json

import numpy as np
import pytest
from support.serving import generated

from synthgen import corpus, logits
from synthgen.logits import LogitsSpec
from synthgen.teachers.completion import parsed
from synthgen.teachers.server_tokens import TokenMap, UnknownToken


@pytest.fixture(scope="session")
def tokens(tiny) -> TokenMap:
    return TokenMap.open(str(tiny))


def test_reading_leaves_the_collector_as_it_was():
    for body in (b'{"a": [1]}', b'{"a": '):
        for before in (True, False):
            (gc.enable if before else gc.disable)()
            with contextlib.suppress(ValueError):
                parsed(body)
            after = gc.isenabled()
            gc.enable()
            assert after == before


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_kept_apart(serve, tmp_path, field):
    server = serve(reasoning=field)
    rows, _, _ = generated(tmp_path, server, seeds=3)
    for r in rows:
        assert r.completion[0]["reasoning_content"] == r.rationale == "I thought about it."
        assert "thought" not in r.text
        assert r.usage["reasoning_tokens"] == 5


def test_structured_output_is_asked_for_and_checked(serve, tmp_path):
    server = serve()
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    rows, failures, _ = generated(tmp_path, server, seeds=4, generate={"json_schema": schema})
    assert not failures
    assert all(json.loads(r.text)["answer"] for r in rows)
    wrong = {**schema, "required": ["other"]}
    rows, failures, _ = generated(tmp_path, server, name="wrong", seeds=2, generate={"json_schema": wrong})
    assert not rows
    assert {f["kind"] for f in failures} == {"schema"}
    assert "'other' is a required property" in failures[0]["reason"]
    assert server.stats()["requests"] == 4 + 2 * 3  # three attempts for each row, and every attempt is paid


def test_extra_parameters_and_tools_are_sent(serve, tmp_path):
    server = serve()
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    rows = [{"id": "a", "question": "What?", "tools": [tool]}, {"id": "b", "question": "What?"}]
    made, _, _ = generated(tmp_path, server, seeds=rows, teacher={"extra": {"top_p": None, "reasoning_effort": "low"}})
    sent = server.stats()["bodies_text"]
    assert len(sent) == 2  # the same question with a tool is a different request
    assert all("top_p" not in body and body["reasoning_effort"] == "low" for body in sent)
    assert sorted("tools" in body for body in sent) == [False, True]
    assert len({r.id for r in made}) == 2


@pytest.mark.parametrize("vllm", [False, True])
def test_logprobs_become_topk(serve, tmp_path, tokens, tiny, vllm):
    vocab = [[i, piece.decode()] for piece, i in list(tokens.by_bytes.items())[1000:1400] if _is_text(piece)]
    server = serve(vocab=vocab, vllm=vllm, tokens=6)
    _, failures, manifest = generated(
        tmp_path,
        server,
        seeds=6,
        teacher={"tokenizer": str(tiny)},
        logits={"kind": "topk", "k": 5, "temperature": 1.0},
    )
    assert not failures
    assert server.stats()["as_ids"] == (6 if vllm else 0)  # all six requests, even the first, ask for token ids
    folder = tmp_path / "run/generated"
    by_text = {text: i for i, text in vocab}
    for path in sorted((folder / "logits/m").glob("*.parquet")):
        shard = logits.read(path)
        data = {r.id: r for _, found in corpus.records(folder) for r in found}
        for row, record_id in enumerate(shard.ids):
            record = data[record_id]
            logits.check_aligned(shard, row, record_id, record.token_ids, path)
            target = shard.target(row)
            assert target.ids.shape == (6, 5)
            assert "".join(vocab_text(by_text, i) for i in record.token_ids) == record.text
            assert (target.ids[:, 0] == record.token_ids).all()
            mass = np.exp(target.logprobs.astype(np.float64)).sum(1)
            assert np.allclose(np.exp(target.log_tail), 1 - mass, atol=2e-3)
            assert (target.log_z == 0).all()
            assert record.scores == [{"name": "unmapped_tokens", "value": 0.0}]
            assert record.prompt_token_ids
    assert manifest["teachers"]["m"]["tokenizer"] == tokens.hash


def _is_text(piece: bytes) -> bool:
    try:
        return piece.decode().isascii()
    except UnicodeDecodeError:
        return False


def vocab_text(by_text: dict[str, int], token: int) -> str:
    return next(text for text, i in by_text.items() if i == token)


def entry(token: str, logprob: float, **more) -> dict:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()), **more}


def test_sentinel_and_unmapped_tokens_go_to_the_tail(tokens):
    hello, world = tokens.by_text["Hello"], tokens.by_text[" world"]
    content = [
        entry("Hello", -0.5, top_logprobs=[entry("Hello", -0.5), entry("no such token", -1.5), entry("Hi", -9999.0)]),
        entry(" world", -0.1, top_logprobs=[entry("!", -3.0), entry(" world", -0.1)]),
    ]
    ids, target, unmapped = tokens.topk(content, 3, "Hello world")
    assert ids == [hello, world]
    assert unmapped == 1
    assert target.ids[:, 0].tolist() == [hello, world]
    assert target.logprobs[0].tolist() == pytest.approx([-0.5, logits.FLOOR, logits.FLOOR])
    assert target.log_tail[0] == pytest.approx(np.log(1 - np.exp(-0.5)), abs=1e-5)
    assert target.logprobs[1, :2].tolist() == pytest.approx([-0.1, -3.0])  # sorted
    logits.encode(target, logits.meta(LogitsSpec("topk", k=3), tokens.size, "t", "h"))


def test_bytes_that_are_no_text_and_text_that_is_no_token(tokens):
    broken = next(piece for piece in tokens.by_bytes if not _utf8(piece))
    top = [{"token": "\ufffd", "logprob": -0.1, "bytes": list(broken)}]
    ids, _, _ = tokens.topk([{**top[0], "top_logprobs": top}], 1, "")
    assert ids == [tokens.by_bytes[broken]]
    # An entry without bytes gets its token from the tokenization of the whole text, if this agrees with the other
    # entries.
    lost = {"token": "\ufffd", "logprob": -0.1, "bytes": None}
    content = [{**lost, "top_logprobs": [lost]}, entry(" world", -0.1, top_logprobs=[entry(" world", -0.1)])]
    ids, _, unmapped = tokens.topk(content, 1, "Hello world")
    assert ids == [tokens.by_text["Hello"], tokens.by_text[" world"]]
    assert unmapped == 1
    with pytest.raises(UnknownToken):
        tokens.topk(content, 1, "Quite another text")


def _utf8(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_token_map_is_the_tokenizers_own(tokens):
    """The bytes of a token of real text map back to the same token."""
    text = "The naïve café — 12,345 résumés; 日本語 and 🙂 too.\n\tdef f(x): return x**2"
    for token in tokens.tokenizer(text)["input_ids"]:
        piece = next(p for p, i in tokens.by_bytes.items() if i == token)
        assert tokens.id({"token": piece.decode(errors="replace"), "bytes": list(piece)}) == token
    end = tokens.tokenizer.eos_token
    assert tokens.id(entry(end, 0.0)) == tokens.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("number", "known"), [("0", True), ("2", True), ("-1", False), ("", False), ("²", False), ("x", False)]
)
def test_a_token_that_is_written_as_its_id(tokens, number, known):
    last = max(tokens.pieces)
    assert tokens.id({"token": f"token_id:{number}"}) == (int(number) if known else -1)
    assert [tokens.id({"token": f"token_id:{last + more}"}) for more in (0, 1)] == [last, -1]
    assert tokens.size == last + 1


def test_classify_with_logprobs_end_to_end(serve, tmp_path):
    server = serve(vocab=[[1, "payment"], [2, "delivery"], *[[i, f"w{i}"] for i in range(3, 30)]], tokens=1)
    rows, failures, _ = generated(
        tmp_path, server, seeds=30, strategy="classify", generate={"labels": ["payment", "delivery"]}
    )
    by = {s["name"]: s["value"] for r in rows for s in r.scores}
    assert by["label_from_answer"] == 0.0
    assert all(sum(r.label_probs) == pytest.approx(1.0) for r in rows)
    assert {f["kind"] for f in failures} <= {"schema"}
    assert rows
