"""Losses computed from hidden states in chunks; losses of single tokens; cross-entropy computed together with a
divergence.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.exact_losses import (
    DEFINED,
    HEADS,
    SHAPES,
    N,
    V,
    close,
    exact,
    loss_of,
    target_of,
    teacher_and_student,
    value_and_gradient,
)

from distill import losses
from distill.losses import Dense, cut, divergence
from distill.output_layer import Head, logits_of, through_head


@pytest.mark.parametrize("chunk", [1, 7, N, None])
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_chunks_through_the_head_against_float64(name, kind, chunk):
    """Values and gradients of hidden states, weight and bias, for every pair of loss and target, with several chunk
    sizes.
    """
    logp, _ = teacher_and_student()
    generator = torch.Generator().manual_seed(1)
    hidden, weight, bias = (torch.randn(*s, generator=generator) for s in ((N, 16), (V, 16), (V,)))
    target, weights = target_of(kind, logp, 2.0), torch.rand(N, generator=generator)
    for number, shape in enumerate(HEADS.values()):
        leaves = [t.clone().requires_grad_() for t in ((hidden, weight, bias) if number % 2 else (hidden, weight))]
        head = Head(leaves[1], leaves[2] if number % 2 else None, **shape)
        total, values = through_head(
            leaves[0], head, lambda z, at: divergence(z, cut(target, *at), name, temperature=2.0), weights, chunk
        )
        (3 * total).backward()
        wide = [t.detach().double().requires_grad_() for t in leaves]
        z = wide[0] @ wide[1].T + (wide[2] if number % 2 else 0)
        z = z * shape.get("scale", 1)
        z = torch.tanh(z / shape["softcap"]) * shape["softcap"] if "softcap" in shape else z
        expected = exact(name, target, logp, z, 2.0)
        (3 * (weights.double() * expected).sum()).backward()
        assert close(values, expected.detach()) < 1e-5
        assert close(total.detach(), (weights.double() * expected.detach()).sum()) < 1e-5
        for leaf, other in zip(leaves, wide, strict=True):
            assert close(leaf.grad, other.grad) < 1e-4 * max(1.0, float(other.grad.abs().max()))


def test_chunks_of_whole_logits_and_of_half_floats():
    logp, z = teacher_and_student()
    target = target_of("topk", logp, 1.0)

    def loss(z: torch.Tensor) -> torch.Tensor:
        return through_head(z, None, lambda z, at: divergence(z, cut(target, *at), "jsd"), torch.ones(N), 7)[0]

    value, gradient = value_and_gradient(loss, z)
    expected, expected_gradient = value_and_gradient(lambda z: divergence(z, target, "jsd"), z)
    assert torch.allclose(value, expected.sum())
    assert torch.allclose(gradient, expected_gradient, atol=1e-7)
    hidden, weight = (torch.randn(*s).bfloat16().requires_grad_() for s in ((N, 16), (V, 16)))
    with torch.autocast("cpu", torch.bfloat16):
        for leaf, head in (
            (hidden, Head(weight)),
            (hidden.detach().float().requires_grad_(), Head(weight.detach().float().requires_grad_())),
        ):
            total, values = through_head(
                leaf, head, lambda z, at: divergence(z, cut(target, *at), "jsd"), torch.ones(N), 7
            )
            total.backward()
            assert values.dtype == torch.float32
            assert leaf.grad.dtype == leaf.dtype
            assert head.weight_VD.grad.dtype == head.weight_VD.dtype
            whole = divergence(logits_of(hidden, Head(weight)), target, "jsd")
            assert torch.allclose(values, whole, rtol=1e-3)


def test_a_frozen_output_layer_gets_no_gradient_and_none_is_made_without_need():
    logp, _ = teacher_and_student()
    hidden, weight = torch.randn(N, 16).requires_grad_(), torch.randn(V, 16)
    tokenwise = lambda z, at: divergence(z, cut(Dense(logp), *at))  # noqa: E731
    total, _ = through_head(hidden, Head(weight), tokenwise, torch.ones(N), 7)
    total.backward()
    assert weight.grad is None
    assert bool(hidden.grad.any())
    with pytest.raises(RuntimeError, match="once"):
        total.backward()
    with torch.no_grad():
        assert torch.allclose(through_head(hidden, Head(weight), tokenwise, torch.ones(N), 7)[0], total.detach())


@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_each_token_stands_for_itself(name, kind):
    """The value and gradient of a token are the same alone and among other tokens."""
    logp, z = teacher_and_student()
    target = target_of(kind, logp, 2.0)
    value, gradient = value_and_gradient(lambda z: divergence(z, target, name, temperature=2.0), z)
    for a, b in ((0, 1), (3, 20), (20, N)):
        alone = value_and_gradient(loss_of(cut(target, a, b), name, temperature=2.0), z[a:b])
        assert torch.allclose(alone[0], value[a:b], atol=1e-6)
        assert torch.allclose(alone[1], gradient[a:b], atol=1e-6)


@pytest.mark.parametrize("beyond", [0, 30])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_labels_beside_a_target_against_float64(name, kind, temperature, beyond):
    """`with_cross_entropy` gives the same divergence and cross-entropy as two separate calls, and the same gradient of
    any weighted sum of both. Labels are taken from inside and outside the stored ids, and the student's vocabulary may
    be padded.
    """
    logp, z = teacher_and_student()
    z = torch.cat([z, torch.full((N, beyond), 1.5)], -1)
    target = target_of(kind, logp, temperature, 8)
    if kind == "topk":
        target = replace(target, largest=V - 1)  # targets that are read from shards also have `largest`
    ids = target.ids_NK if kind == "topk" else target.ids_NU if kind == "sampled" else torch.zeros(N, 1).long()
    inside = torch.arange(N) % 2 == 0
    labels = torch.where(inside, ids[:, 0], torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(2)))
    mixed = torch.rand(N, 2, generator=torch.Generator().manual_seed(3))
    for shape in SHAPES.get(name, [{}]):
        parameters = {"temperature": temperature, "vocabulary": V, **shape}
        both: list[torch.Tensor] = []

        def together(z, parameters=parameters, both=both):
            both.append(losses.with_cross_entropy(z, target, labels, name, **parameters))
            return both[0] * mixed

        def apart(z, shape=shape):
            far = exact(name, target, logp, z[:, :V], temperature, **shape)
            near = torch.nn.functional.cross_entropy(z, labels, reduction="none")
            return torch.stack([far, near], -1) * mixed.double()

        value, gradient = value_and_gradient(together, z)
        expected, expected_gradient = value_and_gradient(apart, z.double())
        assert close(value, expected) < 1e-5
        assert close(gradient, expected_gradient) < 1e-5
        far = divergence(z, target, name, **parameters)
        assert torch.allclose(both[0], torch.stack([far, losses.cross_entropy(z, labels)], -1), atol=1e-5)


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_labels_beside_ids_that_the_student_has_not(kind):
    logp, z = teacher_and_student()
    target, labels = target_of(kind, logp, 1.0, 64), torch.arange(N) % 200
    apart = value_and_gradient(
        lambda z: divergence(z, target, "forward_kl") + losses.cross_entropy(z, labels), z[:, :200]
    )
    together = value_and_gradient(lambda z: losses.with_cross_entropy(z, target, labels).sum(-1), z[:, :200])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(apart, together, strict=True))


def test_one_softmax_serves_both(monkeypatch):
    """At temperature 1, divergence and cross-entropy share one softmax, which saves one logsumexp."""
    logp, z = teacher_and_student()
    calls = []
    real = torch.Tensor.logsumexp
    monkeypatch.setattr(
        torch.Tensor, "logsumexp", lambda self, *arguments, **named: calls.append(1) or real(self, *arguments, **named)
    )
    for kind, both, alone in (("sampled", 1, 2), ("topk", 2, 3)):
        for temperature, wanted in ((1.0, both), (2.0, alone)):
            calls.clear()
            target = target_of(kind, logp, temperature)
            if kind == "topk":
                target = replace(target, largest=V - 1)
            calls.clear()
            losses.with_cross_entropy(z, target, torch.arange(N), temperature=temperature)
            assert len(calls) == wanted
