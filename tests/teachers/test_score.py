"""The scores that a local teacher gives to completions, compared with one forward pass of transformers for each."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import TeacherOptions
from synthgen.teachers.local import open_local

TEXTS = ["It is four.", "No", "Four, because two and two are four."]


@pytest.fixture(scope="module")
def teacher(tiny):
    return open_local(TeacherSection(model=str(tiny), batch_size=2), TeacherOptions())


def asking(text: str, question: str = "What is 2 plus 2?", ids: tuple[int, ...] = ()) -> Request:
    completion = ({"role": "assistant", "content": text},)
    messages = [{"role": "user", "content": question}]
    sampling = {"temperature": None, "top_p": None, "max_new_tokens": 0, "seed": 0, "sample_index": 0}
    return Request("score", messages, sampling, completion=completion, completion_ids=ids, id="0a" * 8)


def plain(teacher, prompt: list[int], tokens: list[int]) -> np.ndarray:
    """The log-probabilities (T, V) of each token after the prompt, from a forward pass over this text alone."""
    import torch

    with torch.inference_mode():
        logits = teacher.model(torch.tensor([[*prompt, *tokens]])).logits[0].double()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].numpy()


def test_each_token_has_its_log_probability_and_the_likeliest_tokens(teacher):
    ticks = []
    replies = teacher.score([asking(text) for text in TEXTS], LogitsSpec("topk", k=5), ticks.append)
    assert sum(ticks) == sum(len(reply.token_ids) for reply in replies)
    for text, reply in zip(TEXTS, replies, strict=True):
        assert (reply.failure, reply.text, reply.finish_reason) == (None, text, "stop")
        assert teacher.tokens.decode(reply.token_ids) == text
        assert reply.token_ids[-1] in teacher.tokens.eos
        assert reply.prompt_token_ids == teacher.render([{"role": "user", "content": "What is 2 plus 2?"}])
        expected = plain(teacher, reply.prompt_token_ids, reply.token_ids)
        places = np.arange(len(reply.token_ids))
        assert np.allclose(reply.token_logprobs, expected[places, reply.token_ids], atol=1e-4)
        assert np.allclose(reply.target.logprobs, -np.sort(-expected, axis=1)[:, :5], atol=1e-4)
        left = 1 - np.exp(reply.target.logprobs.astype(float)).sum(1)
        assert np.allclose(np.exp(reply.target.log_tail), left, atol=1e-4)


def test_a_completion_that_was_cut_off_does_not_end(teacher):
    ids = tuple(teacher.tokens.ids("It is"))
    cut, whole = teacher.score([asking("It is", ids=ids), asking("It is")], None)
    assert (list(cut.token_ids), cut.finish_reason, cut.target) == (list(ids), "length", None)
    assert (list(whole.token_ids)[:-1], whole.finish_reason) == (list(ids), "stop")
    assert np.allclose(cut.token_logprobs, whole.token_logprobs[:-1], atol=1e-4)


def test_draws_follow_the_distribution_of_each_token(teacher):
    [reply] = teacher.score([asking(TEXTS[0])], LogitsSpec("sampled", 0.05, draws=4000))
    expected = plain(teacher, reply.prompt_token_ids, reply.token_ids) / 0.05
    likely = np.exp(expected - expected.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    begin = 0
    for row, count in zip(likely, reply.target.uniques, strict=True):
        ids, counts = reply.target.ids[begin : begin + count], reply.target.counts[begin : begin + count]
        begin += count
        drawn = np.bincount(ids, counts, len(row)) / 4000
        assert counts.sum() == 4000
        assert np.abs(drawn - row).max() < 0.04


def test_a_prompt_that_is_too_long_fails_alone(teacher):
    long, short = teacher.score([asking("No", question="word " * teacher.context), asking("No")], None)
    assert long.failure[0] == "context"
    assert short.failure is None
    prompt = teacher.render([{"role": "user", "content": "What is 2 plus 2?"}])
    most = ("a " * teacher.context).strip()
    room = teacher.context - len(prompt)
    exact, more = (tuple(teacher.tokens.ids(most)[:count]) for count in (room, room + 1))
    fits, cannot = teacher.score([asking(teacher.tokens.decode(ids), ids=ids) for ids in (exact, more)], None)
    assert (fits.failure, len(fits.token_ids)) == (None, room)
    assert cannot.failure[0] == "context"
