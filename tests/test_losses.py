"""The loss core against float64, its own theory, and planted errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill import losses
from distill.data import sampled_batch, topk_batch
from synthgen import logits
from synthgen.teachers.sampling import invert, top_k

V, N = 257, 40


def teacher_and_student(seed: int = 0, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(N, V, generator=generator) * scale
    student = torch.randn(N, V, generator=generator) * scale
    return teacher.log_softmax(-1), student


def reference(logp: torch.Tensor, z: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(p_T ‖ q_T)·T² a token and its gradient, in float64 by autograd over the full vocabulary."""
    z = z.double().requires_grad_()
    p = (logp.double() / temperature).softmax(-1)
    value = temperature**2 * (p * (p.log() - (z / temperature).log_softmax(-1))).sum(-1)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def value_and_gradient(loss, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    z = z.clone().requires_grad_()
    value = loss(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def topk_inputs(logp: torch.Tensor, k: int, temperature: float):
    ids, kept, tail, log_z = top_k(logp, k, temperature)
    return ids.long(), kept, tail, log_z


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("kind", ["full", "topk with k = V"])
def test_full_vocabulary_against_float64(kind, temperature):
    logp, z = teacher_and_student()
    expected, expected_gradient = reference(logp, z, temperature)
    if kind == "full":
        value, gradient = value_and_gradient(lambda z: losses.kl_full(z, logp, temperature), z)
    else:
        inputs = topk_inputs(logp, V, temperature)
        value, gradient = value_and_gradient(lambda z: losses.kl_topk(z, *inputs, temperature=temperature), z)
    error = float(((value - expected).abs() / expected.abs().clamp(min=1)).max())
    gradient_error = float((gradient - expected_gradient).abs().max())
    print(f"{kind}, T = {temperature}: value {error:.1e}, gradient {gradient_error:.1e}")
    assert error < 1e-5
    assert gradient_error < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [1, 8, 64, V])
def test_topk_with_its_bucket_against_float64(k, temperature):
    """Kept entries and one bucket for the rest is KL between the two coarser distributions."""
    logp, z = teacher_and_student()
    inputs = topk_inputs(logp, k, temperature)
    ids = inputs[0]

    def exact(z: torch.Tensor) -> torch.Tensor:
        p = (logp.double() / temperature).softmax(-1)
        q = (z.double() / temperature).softmax(-1)
        kept_p, kept_q = p.gather(-1, ids), q.gather(-1, ids)
        value = (kept_p * (kept_p.log() - kept_q.log())).sum(-1)
        if k < V:
            rho = p.scatter(-1, ids, 0).sum(-1)
            sigma = q.scatter(-1, ids, 0).sum(-1)
            value = value + rho * (rho.log() - sigma.log())
        return temperature**2 * value

    expected, expected_gradient = value_and_gradient(exact, z.double())
    value, gradient = value_and_gradient(lambda z: losses.kl_topk(z, *inputs, temperature=temperature), z)
    assert torch.allclose(value.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.allclose(gradient.double(), expected_gradient, atol=1e-5)
    full, _ = reference(logp, z, temperature)
    assert bool((value <= full + 1e-5).all()), "coarser distributions are never farther apart"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("k", [5, 64, V])
def test_zero_when_student_is_teacher(k, temperature):
    logp, _ = teacher_and_student()
    value, gradient = value_and_gradient(
        lambda z: losses.kl_topk(z, *topk_inputs(logp, k, temperature), temperature=temperature), logp + 3.0
    )
    assert float(value.abs().max()) / temperature**2 < 1e-6
    assert float(gradient.abs().max()) < 1e-6
    assert float(losses.kl_full(logp + 3.0, logp, temperature).abs().max()) < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_storage_error_of_topk_is_as_stated(temperature):
    """Through bytes and back: log-probabilities within STORAGE_ERROR, and the loss moves by about as little."""
    logp, z = teacher_and_student()
    ids, kept, tail, log_z = top_k(logp, 64, temperature)
    target = logits.TopK(*(t.numpy() for t in (ids, kept, tail, log_z)))
    meta = logits.meta({"kind": "topk", "k": 64, "temperature": temperature}, V, "t", "tok")
    stored = logits.decode(logits.encode(target, meta), meta)
    assert np.array_equal(stored.ids, target.ids)
    assert np.abs(stored.logprobs - target.logprobs).max() <= logits.STORAGE_ERROR + 1e-6
    assert np.abs(stored.log_tail - target.log_tail).max() <= logits.STORAGE_ERROR + 1e-6
    assert np.array_equal(stored.log_z, target.log_z)
    exact = losses.kl_topk(z, ids.long(), kept, tail, log_z, temperature)
    lossy = losses.kl_topk(z, *topk_batch([stored]), temperature=temperature)
    error = float((exact - lossy).abs().max())
    print(f"T = {temperature}: storage moves the loss by at most {error:.1e} nats")
    assert error < 5e-3
    same = losses.kl_topk(logp, *topk_batch([stored]), temperature=temperature)
    assert float(same.abs().max()) / temperature**2 < 1e-6, (
        "storage error squared: a student equal to the teacher is still at zero"
    )


def draw(logp: torch.Tensor, draws: int, temperature: float, seed: int) -> logits.Sampled:
    u = torch.from_numpy(np.random.default_rng(seed).random((len(logp), draws)))
    cdf = (logp / temperature).softmax(-1).double().cumsum(-1)
    return logits.count_draws(invert(cdf, u).numpy())


def z_scores(logp: torch.Tensor, temperature: float, target: logits.Sampled, draws: int) -> torch.Tensor:
    """How many standard errors each token's stored loss is from its expectation, the full cross-entropy.

    The student is the teacher: its loss is then the entropy, which a lost tail lowers at every token.
    """
    z = logp
    p = (logp / temperature).softmax(-1).double()
    logq = (z / temperature).log_softmax(-1).double()
    mean = -(p * logq).sum(-1)
    error = ((p * (logq + mean[:, None]) ** 2).sum(-1) / draws).sqrt()
    value = losses.sampled_cross_entropy(z, *sampled_batch([target], draws), temperature) / temperature**2
    return (value.double() - mean) / error


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sampled_targets_are_unbiased(temperature):
    """The mean over many tokens is within 3 standard errors of the full cross-entropy; so is the gradient."""
    logp, z = teacher_and_student(scale=1.0)
    draws = 50
    scores = torch.stack(
        [z_scores(logp, temperature, draw(logp, draws, temperature, seed), draws) for seed in range(40)]
    )
    assert abs(float(scores.mean())) * scores.numel() ** 0.5 < 3
    assert 0.8 < float(scores.std()) < 1.2, "the spread is that of N draws"
    expected = reference(logp, z, temperature)[1]
    gradients = []
    for seed in range(200):
        batch = sampled_batch([draw(logp, draws, temperature, seed)], draws)
        gradients.append(value_and_gradient(lambda z, b=batch: losses.sampled_cross_entropy(z, *b, temperature), z)[1])
    p = (logp / temperature).softmax(-1).double()
    error = temperature * (p * (1 - p) / (draws * len(gradients))).sqrt()
    score = (torch.stack(gradients).double().mean(0) - expected) / error
    often = p * draws * len(gradients) > 20
    assert float((score[often] ** 2).mean()) < 1.1, "mean squared z-score over thousands of components is one"


@pytest.mark.parametrize("plant", ["tail dropped", "wrong temperature"])
def test_the_unbiasedness_test_sees_a_planted_bias(plant):
    logp, _ = teacher_and_student(scale=1.0)
    draws, scores = 50, []
    for seed in range(40):
        biased = logp
        if plant == "tail dropped":
            ids = logp.topk(V // 2).indices
            biased = torch.full_like(logp, -torch.inf).scatter(-1, ids, logp.gather(-1, ids))
        target = draw(biased, draws, 1.0 if plant == "tail dropped" else 1.5, seed)
        scores.append(z_scores(logp, 1.0, target, draws))
    scores = torch.stack(scores)
    assert abs(float(scores.mean())) * scores.numel() ** 0.5 > 3


def test_cross_entropy_is_torchs():
    _, z = teacher_and_student()
    labels = torch.arange(N)
    value, gradient = value_and_gradient(lambda z: losses.cross_entropy(z, labels), z)
    expected, expected_gradient = value_and_gradient(
        lambda z: torch.nn.functional.cross_entropy(z, labels, reduction="none"), z.double()
    )
    assert torch.allclose(value.double(), expected, atol=1e-5)
    assert torch.allclose(gradient.double(), expected_gradient, atol=1e-6)


def test_sparse_gradient_by_finite_differences():
    """The hand-written backward, in float64, against numbers."""
    logp, z = teacher_and_student()
    ids, weights = sampled_batch([draw(logp[:4], 20, 1.0, 0)], 20)
    assert torch.autograd.gradcheck(
        lambda z: losses._SparseCrossEntropy.apply(z, ids, weights.double()), z[:4].double().requires_grad_()
    )
