"""Stored distributions: top-k has a bounded error, and draws are unbiased."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.exact_losses import DEFINED, V, draw, exact, target_of, teacher_and_student, value_and_gradient

from distill import losses
from distill.data import sampled_batch, topk_batch
from distill.losses import Dense, Sampled, TopK, divergence
from synthgen import logits
from synthgen.lm.sampling import top_k
from synthgen.tables.divergences import refusal


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_storage_error_of_topk_is_as_stated(temperature):
    """Encoding and decoding changes log-probabilities by at most STORAGE_ERROR, and the loss by about as much."""
    logp, z = teacher_and_student()
    ids, kept, tail, log_z = top_k(logp, 64, temperature)
    target = logits.TopK(*(t.numpy() for t in (ids, kept, tail, log_z)))
    meta = logits.meta(logits.LogitsSpec("topk", k=64, temperature=temperature), V, "t", "tok")
    stored = logits.decode(logits.encode(target, meta), meta)
    assert np.array_equal(stored.ids, target.ids)
    assert np.abs(stored.logprobs - target.logprobs).max() <= logits.STORAGE_ERROR + 1e-6
    assert np.abs(stored.log_tail - target.log_tail).max() <= logits.STORAGE_ERROR + 1e-6
    assert np.array_equal(stored.log_z, target.log_z)
    lossy = TopK(*topk_batch([stored]))
    exactly = TopK(ids.long(), kept, tail, log_z)
    for name in (name for name, kind in DEFINED if kind == "topk"):
        moved = divergence(z, exactly, name, temperature=temperature) - divergence(
            z, lossy, name, temperature=temperature
        )
        error = float(moved.abs().max())
        print(f"{name}, T = {temperature}: storage moves the loss by at most {error:.1e} nats")
        assert error < 20 * logits.STORAGE_ERROR
        if name not in ("cross_entropy", "adaptive_kl"):
            same = divergence(logp, lossy, name, temperature=temperature)
            assert float(same.abs().max()) / temperature**2 < 1e-6, "the square of the storage error"


def z_scores(logp: torch.Tensor, temperature: float, target: logits.Sampled, draws: int) -> torch.Tensor:
    """The difference between each token's loss on draws and its expectation, in standard errors.

    The expectation is the full cross-entropy. The student equals the teacher, so the expectation is the teacher's
    entropy. If the loss ignored the probability of ids that were not drawn, the loss of every token would be too low.
    """
    z = logp
    p = (logp / temperature).softmax(-1).double()
    logq = (z / temperature).log_softmax(-1).double()
    mean = -(p * logq).sum(-1)
    error = ((p * (logq + mean[:, None]) ** 2).sum(-1) / draws).sqrt()
    value = divergence(z, Sampled(*sampled_batch([target], draws)), temperature=temperature) / temperature**2
    return (value.double() - mean) / error


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sampled_targets_are_unbiased(temperature):
    """The mean loss over many tokens is within 3 standard errors of the full cross-entropy. The error of the mean
    gradient is as large as for independent draws: measured in standard errors, its mean square is near 1.
    """
    logp, z = teacher_and_student(scale=1.0)
    draws = 50
    scores = torch.stack(
        [z_scores(logp, temperature, draw(logp, draws, temperature, seed), draws) for seed in range(40)]
    )
    assert abs(float(scores.mean())) * scores.numel() ** 0.5 < 3
    assert 0.8 < float(scores.std()) < 1.2, "the spread is that of N draws"
    expected = value_and_gradient(lambda z: exact("forward_kl", Dense(logp), logp, z, temperature), z.double())[1]
    gradients = []
    for seed in range(200):
        batch = Sampled(*sampled_batch([draw(logp, draws, temperature, seed)], draws))
        gradients.append(value_and_gradient(lambda z, b=batch: divergence(z, b, temperature=temperature), z)[1])
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


def test_reverse_kl_of_draws_would_be_infinite():
    """Shows why the table of divergences refuses reverse KL from draws: most ids are never drawn."""
    logp, z = teacher_and_student()
    target = target_of("sampled", logp, 1.0)
    histogram = torch.zeros_like(logp).scatter_add_(-1, target.ids_NU, target.weights_NU)
    assert bool(divergence(z, Dense(histogram.log()), "reverse_kl").isinf().all())
    assert "most tokens probability zero" in refusal("reverse_kl", "sampled")


def test_sparse_gradient_by_finite_differences():
    """The hand-written backward pass in float64, compared with finite differences."""
    logp, z = teacher_and_student()
    ids, weights = sampled_batch([draw(logp[:4], 20, 1.0, 0)], 20)
    assert torch.autograd.gradcheck(
        lambda z: losses._SparseCrossEntropy.apply(z, ids, weights.double()), z[:4].double().requires_grad_()
    )
