"""The same model behind vLLM's own server: what a client of OpenAI's chat completions gets."""

from __future__ import annotations

import json
import urllib.request


def _post(address: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"{address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def test_chat_comes_with_log_probabilities_that_are_transformers_own(server, smol, request_maker):
    question = "What is 17 plus 25?"
    messages = [{"role": "user", "content": question}]
    body = {"model": "smol", "messages": messages, "temperature": 0, "max_tokens": 12, "logprobs": True}
    choice = _post(server, {**body, "top_logprobs": 20})["choices"][0]
    found = choice["logprobs"]["content"]
    ours = smol.sample([request_maker(1, question, max_new_tokens=12)], {"kind": "topk", "k": 20, "temperature": 1.0})[
        0
    ]
    assert choice["message"]["content"] == ours.text
    for position, (entry, token) in enumerate(zip(found, ours.token_ids, strict=True)):
        place = list(ours.target.ids[position]).index(token)
        assert abs(entry["logprob"] - ours.target.logprobs[position][place]) < 1e-3
        theirs = sorted((one["logprob"] for one in entry["top_logprobs"]), reverse=True)[:20]
        assert max(abs(a - b) for a, b in zip(theirs, ours.target.logprobs[position], strict=True)) < 1e-3
