"""The figures of an export are what they say: differences between models, and times on a clock that is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distill.exporting import parity, timing
from distill.exporting.running import open_model
from synthgen.errors import CorpusError, UserError

PAIRS = [([1, 2, 3], [4, 5, 6, 7]), ([8, 9], [10]), ([11], [12, 13])]


def llama(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=30, initializer_range=0.5, **sizes)).eval()


@pytest.fixture
def bar():
    return SimpleNamespace(advance=lambda count: None)


def test_the_differences_of_two_models_are_those_of_whole_texts(tmp_path, bar):
    """The truth is computed by torch from whole texts without a cache, one position at a time."""
    student, other = llama(0), llama(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    other.save_pretrained(tmp_path)
    found = parity.agreement(student, open_model("torch", tmp_path), PAIRS, bar)
    same, differences, divergences = [], [], []
    for prompt, completion in PAIRS:
        with torch.no_grad():
            whole = torch.tensor([prompt + completion])
            p, q = (torch.log_softmax(model(whole).logits[0].double(), -1) for model in (student, other))
        for place in range(len(prompt) - 1, len(prompt) + len(completion) - 1):
            same.append(bool(p[place].argmax() == q[place].argmax()))
            differences.append(float((p[place] - q[place]).abs().max()))
            divergences.append(float(torch.nn.functional.kl_div(q[place], p[place], log_target=True, reduction="sum")))
    assert 0 < sum(same) < len(same) == 7, "a truth that would not tell a fault"
    assert found["tokens"] == 7
    assert found["agreement"] == sum(same) / 7
    assert found["max_logprob_difference"] == pytest.approx(max(differences), rel=1e-4)
    assert found["kl"] == pytest.approx(sum(divergences) / 7, rel=1e-4)


def test_the_differences_of_labels_are_those_of_their_probabilities():
    student = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]])
    other = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4], [0.9, 0.05, 0.05]])
    found = parity.same_labels(student, other)
    assert found == {"agreement": 0.75, "max_logprob_difference": pytest.approx(np.log(0.5 / 0.2))}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_results_that_are_no_numbers_are_never_equal(value, bar, tmp_path):
    good, bad = np.full((2, 3), 1 / 3), np.full((2, 3), value)
    with pytest.raises(CorpusError, match="the student's results are not finite"):
        parity.same_labels(bad, good)
    with pytest.raises(UserError, match="the exported model's results are not finite"):
        parity.same_labels(good, bad)


class Clock:
    """Time passes only while a model works."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)


def test_the_times_of_a_decoder_are_of_prompts_and_of_each_further_token(monkeypatch):
    """Each token of a prompt takes 1 s, the first token after it 7 s, and every later token 2 s. The first pass over
    the first prompt, which warms the model up, takes ten times as long.
    """
    clock, resets = Clock(monkeypatch), []

    def reset() -> None:
        resets.append(0)

    def feed(ids: list[int]) -> np.ndarray:
        after, resets[-1] = resets[-1], resets[-1] + 1
        spent = len(ids) if after == 0 else 7 if after == 1 else 2
        clock.now += spent * (10 if len(resets) == 1 else 1)
        return np.eye(5)[[3] * len(ids)]

    model = SimpleNamespace(reset=reset, feed=feed)
    monkeypatch.setattr(timing, "open_model", lambda runtime, path: model)
    found = timing.time_model({"runtime": "torch", "path": "x", "prompts": [[1] * 4, [1] * 6]})
    steps = [7, *[2] * 23] * 2
    assert resets == [25, 25, 25], "each prompt is read without the one before it, and 24 tokens follow"
    assert found["prompt_tokens"] == 5
    assert found["prompt_ms"] == {"p50": 5000, "p95": pytest.approx(5900)}
    assert found["token_ms"] == {"p50": 2000, "p95": pytest.approx(1000 * np.quantile(steps, 0.95))}
    assert found["tokens_per_second"] == pytest.approx(48 / sum(steps))


def test_the_times_of_a_classifier_are_of_single_texts_and_of_all_at_once(monkeypatch):
    """A single text takes as many seconds as it has letters. Three texts together take 4 s."""
    clock = Clock(monkeypatch)

    def predict(texts: list[str]) -> None:
        clock.now += len(texts[0]) if len(texts) == 1 else 4

    monkeypatch.setattr(timing, "open_encoder", lambda runtime, path: predict)
    found = timing.time_encoder({"runtime": "torch", "path": "x", "texts": ["a", "abc", "abcdefghi"]})
    assert found["text_ms"] == {"p50": 3000, "p95": pytest.approx(8400)}
    assert found["texts_per_second"] == 3 / 4
