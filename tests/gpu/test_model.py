"""Teachers on the device: reproducible bits, draws that follow their probabilities, log-probabilities as on the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.small import CLASSES, WORDS, small_encoder
from transformers import LlamaConfig, LlamaForCausalLM

from synthgen.lm.forward import completion_logits
from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers import open_teacher
from synthgen.teachers.embedding import EmbeddingModel
from synthgen.teachers.transformers import LocalModel

NEAR = 1e-3  # tolerance in nats, because the device adds float32 numbers in another order
SPECS = [
    LogitsSpec("sampled", draws=50),
    LogitsSpec("sampled", 2.0, draws=9),
    LogitsSpec("topk", 2.0, k=16),
]
# All questions begin with the same words, so that the teacher computes this prefix once.
QUESTIONS = [f"Here is a sum to be done by you alone: {n} + {n * n}? {'Think. ' * (n % 4)}" for n in range(12)]


def opened(folder, device: str, **keys) -> LocalModel:
    return LocalModel.open(TeacherSection(model=str(folder), device=device, license="Apache-2.0", batch_size=8, **keys))


@pytest.fixture(scope="module")
def model(device, teacher_folder):
    return opened(teacher_folder, device.type)


@pytest.fixture(scope="module")
def on_cpu(teacher_folder):
    return opened(teacher_folder, "cpu")


def ask(question: str, index: int, tokens: int = 20, kind: str = "sample", top_p: float = 1.0, **fields) -> Request:
    prompt = [{"role": "user", "content": question}]
    sampling = {"temperature": 1.0, "top_p": top_p, "max_new_tokens": tokens}
    return Request(kind, prompt, sampling, id=f"{index + 1:032x}", **fields)


def arrays(target) -> list[np.ndarray]:
    return list(vars(target).values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
@pytest.mark.parametrize("spec", SPECS, ids=["draws", "warm draws", "topk"])
def test_the_same_requests_give_the_same_bits(device, teacher_folder, spec, top_p, dtype):
    """The model is loaded twice, and each copy samples each of two batches twice. One batch has all requests, and the
    other batch has only the first request.
    """
    requests = [ask(q, i, tokens=12 + i, top_p=top_p) for i, q in enumerate(QUESTIONS)]
    for batch in (requests, requests[:1]):
        samples = []
        for _ in range(2):
            teacher = opened(teacher_folder, device.type, dtype=dtype)
            samples += [teacher.sample(batch, spec) for _ in range(2)]
        for again in samples[1:]:
            for a, b in zip(again, samples[0], strict=True):
                assert list(a.token_ids) == list(b.token_ids)
                assert all(np.array_equal(x, y) for x, y in zip(arrays(a.target), arrays(b.target), strict=True))


def test_draws_and_tokens_follow_their_own_probabilities(model):
    """A chi-square test on the likely ids, for the first tokens of 800 samples, and for the draws that are stored with
    these samples.
    """
    requests = [ask(QUESTIONS[1], n, tokens=1) for n in range(800)]
    replies = model.sample(requests, SPECS[0])
    p = model.logprobs([list(replies[0].prompt_token_ids)], [[0]])[0][0].double().exp().cpu()
    drawn = [i for r in replies for i, c in zip(r.target.ids, r.target.counts, strict=True) for _ in range(c)]
    for ids in ([r.token_ids[0] for r in replies], drawn):
        likely = (p * len(ids) > 5).nonzero()[:, 0]
        counts, expected = np.bincount(ids, minlength=len(p))[likely], p[likely].numpy() * len(ids)
        chi = float(((counts - expected) ** 2 / (expected * (1 - expected / len(ids)))).mean())
        print(f"mean squared z-score over {len(likely)} likely tokens {chi:.2f}")
        assert 0.3 < chi < 1 + 4 * (2 / len(likely)) ** 0.5


def test_what_is_stored_beside_a_token_is_its_probability_on_the_cpu(model, on_cpu):
    """The top-k stored while sampling, with caches, masks and a shared prefix, compared with plain forward passes."""
    spec = dataclasses.replace(SPECS[2], temperature=1.0)
    for reply in model.sample([ask(q, i) for i, q in enumerate(QUESTIONS)], spec):
        [logp_TV] = on_cpu.logprobs([list(reply.prompt_token_ids)], [list(reply.token_ids)])
        kept = logp_TV.gather(-1, torch.from_numpy(reply.target.ids).long())
        assert float((kept - torch.from_numpy(reply.target.logprobs)).abs().max()) < NEAR
        assert float((logp_TV.topk(16).values - torch.from_numpy(reply.target.logprobs)).abs().max()) < NEAR


@pytest.mark.parametrize("spec", SPECS, ids=["draws", "warm draws", "topk"])
def test_scores_are_those_of_the_cpu(model, on_cpu, spec):
    texts = [({"role": "assistant", "content": f"The sum is {n}, I {'do ' * (n % 5)}think."},) for n in range(12)]
    requests = [ask(q, i, kind="score", completion=texts[i]) for i, q in enumerate(QUESTIONS)]
    replies, expected = model.score(requests, spec), on_cpu.score(requests, spec)
    draws = differ = 0
    for a, b in zip(replies, expected, strict=True):
        assert a.token_ids == b.token_ids
        assert np.abs(np.array(a.token_logprobs) - np.array(b.token_logprobs)).max() < NEAR
        if spec.kind == "topk":
            assert np.abs(a.target.logprobs - b.target.logprobs).max() < NEAR
            assert np.abs(a.target.log_tail - b.target.log_tail).max() < NEAR
            assert np.abs(a.target.log_z - b.target.log_z).max() < NEAR
            continue
        assert np.array_equal(a.target.uniques.shape, b.target.uniques.shape)
        for x, y in zip(split(a.target), split(b.target), strict=True):
            draws += spec.draws
            differ += sum(abs(x.get(i, 0) - y.get(i, 0)) for i in x.keys() | y.keys()) // 2
    assert differ <= draws * 1e-3, "only rounding may change a draw, and it does so seldom"


def split(target) -> list[dict[int, int]]:
    """For each position, the number of draws of each id."""
    bounds = np.cumsum(target.uniques)[:-1]
    pairs = zip(np.split(target.ids, bounds), np.split(target.counts.astype(int), bounds), strict=True)
    return [dict(zip(ids.tolist(), counts.tolist(), strict=True)) for ids, counts in pairs]


def test_label_probabilities_are_those_of_the_cpu(model, on_cpu):
    labels = ("a", "billing issue", "technical", "payment")  # labels of one token and labels of several tokens
    requests = [ask(q, i, kind="classify", labels=labels) for i, q in enumerate(QUESTIONS)]
    for a, b in zip(model.classify(requests), on_cpu.classify(requests), strict=True):
        assert np.abs(np.array(a.label_probs) - np.array(b.label_probs)).max() < NEAR
        assert sum(a.label_probs) == pytest.approx(1)


@pytest.mark.parametrize("scale", [{}, {"logit_scale": 1.0}], ids=["packed", "padded"])
def test_gradients_of_a_teacher_forced_pass_are_those_of_the_cpu(device, scale):
    """Both ways to make a batch are tested: packed with a mask, and padded."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=97, **sizes, **scale))
    rng = np.random.default_rng(0)
    prompts, completions = ([rng.integers(0, 97, n).tolist() for n in sizes] for sizes in ((70, 3, 40), (1, 60, 90)))
    gradients = []
    for where in (torch.device("cpu"), device):
        model.to(where).zero_grad()
        sum(z.log_softmax(-1)[:, 3].sum() for z in completion_logits(model, prompts, completions)).backward()
        gradients.append([p.grad.cpu().clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert float((a - b).abs().max()) < 1e-4 * max(1.0, float(b.abs().max()))


def test_classifiers_and_embedding_models(device, tmp_path):
    small_encoder(tmp_path / "classifier")
    small_encoder(tmp_path / "embedder", headless=True)
    texts = [" ".join(WORDS[: 2 + n % 7]) for n in range(20)]
    labels = tuple(name.lower() for name in CLASSES)
    requests = [ask(text, i, kind="classify", labels=labels) for i, text in enumerate(texts)]
    probs, vectors = [], []
    for where in (device.type, "cpu"):
        section = TeacherSection(model=str(tmp_path / "classifier"), device=where, batch_size=8)
        probs.append(np.array([reply.label_probs for reply in open_teacher(section).classify(requests)]))
        embedder = EmbeddingModel.open(section.model_copy(update={"model": str(tmp_path / "embedder")}))
        vectors.append(embedder.model.vectors(texts, 8))
        assert embedder.model.device.type == where
    assert np.abs(probs[0] - probs[1]).max() < NEAR
    assert float((vectors[0] - vectors[1]).abs().max()) < NEAR
