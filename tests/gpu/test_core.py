"""The losses on the device, compared with float64 on the CPU: all losses and targets, chunks, bfloat16."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.exact_losses import (
    DEFINED,
    HEADS,
    SHAPES,
    TEMPERATURES,
    N,
    V,
    close,
    exact,
    exact_of,
    loss_of,
    target_of,
    teacher_and_student,
    value_and_gradient,
)

from distill.losses import cut, divergence, moved
from distill.output_layer import Head, through_head


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_every_defined_pair_against_float64(device, name, kind, temperature):
    logp, z = teacher_and_student()
    for k in (1, 8, 64, V) if kind == "topk" else (0,):
        target = target_of(kind, logp, temperature, k)
        for shape in SHAPES.get(name, [{}]):
            loss = loss_of(moved(target, device), name, temperature=temperature, **shape)
            value, gradient = value_and_gradient(loss, z.to(device))
            expected = value_and_gradient(exact_of(name, target, logp, temperature, **shape), z.double())
            errors = close(value.cpu(), expected[0]), close(gradient.cpu(), expected[1])
            assert value.device.type == device.type
            assert value.dtype == torch.float32
            assert max(errors) < 1e-5, (k, shape, errors)


@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_a_vocabulary_of_49152_against_float64(device, name, kind):
    generator = torch.Generator().manual_seed(0)
    teacher, z = (torch.randn(16, 49_152, generator=generator) * 3 for _ in range(2))
    logp = teacher.log_softmax(-1)
    target = target_of(kind, logp, 1.0, 64)
    value, gradient = value_and_gradient(loss_of(moved(target, device), name), z.to(device))
    expected = value_and_gradient(exact_of(name, target, logp, 1.0), z.double())
    # Adaptive KL splits the ids into two sets, each of which has about half of the probability. Rounding can move an id
    # at the border to the other set.
    near = 1e-4 if name == "adaptive_kl" else 1e-5
    assert close(value.cpu(), expected[0]) < near
    assert close(gradient.cpu(), expected[1]) < near


@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_bfloat16_logits_are_computed_in_float32(device, name, kind):
    logp, z = teacher_and_student()
    z, target = z.bfloat16(), target_of(kind, logp, 1.0)
    value, gradient = value_and_gradient(loss_of(moved(target, device), name), z.to(device))
    expected = value_and_gradient(exact_of(name, target, logp, 1.0), z.double())
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert close(value.cpu(), expected[0]) < 1e-5
    assert float((gradient.cpu().double() - expected[1]).abs().max()) < 1e-2 * float(expected[1].abs().max())


@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_chunks_through_the_head_against_float64_and_the_whole(device, name, kind):
    """Gradients of hidden states, weight and bias, for every kind of output layer and several sizes of chunk."""
    logp, _ = teacher_and_student()
    generator = torch.Generator().manual_seed(1)
    hidden, weight, bias = (torch.randn(*s, generator=generator) for s in ((N, 16), (V, 16), (V,)))
    target, weights = target_of(kind, logp, 2.0), torch.rand(N, generator=generator)
    there = moved(target, device)
    for shape in HEADS.values():
        wide = [t.double().requires_grad_() for t in (hidden, weight, bias)]
        z = (wide[0] @ wide[1].T + wide[2]) * shape.get("scale", 1)
        z = torch.tanh(z / shape["softcap"]) * shape["softcap"] if "softcap" in shape else z
        expected = exact(name, target, logp, z, 2.0)
        (3 * (weights.double() * expected).sum()).backward()
        by_chunk = []
        for chunk in (N, 1, 7, None):
            leaves = [t.to(device, copy=True).requires_grad_() for t in (hidden, weight, bias)]
            total, values = through_head(
                leaves[0],
                Head(leaves[1], leaves[2], **shape),
                lambda z, at: divergence(z, cut(there, *at), name, temperature=2.0),
                weights.to(device),
                chunk,
            )
            (3 * total).backward()
            assert close(values.cpu(), expected.detach()) < 1e-5, (shape, chunk)
            for leaf, other in zip(leaves, wide, strict=True):
                assert close(leaf.grad.cpu(), other.grad) < 1e-4 * max(1.0, float(other.grad.abs().max())), shape
            by_chunk.append([values, *(leaf.grad for leaf in leaves)])
        for chunked in by_chunk[1:]:
            for part, whole in zip(chunked, by_chunk[0], strict=True):
                assert float((part - whole).abs().max()) < 1e-5 * max(1.0, float(whole.abs().max())), shape


def test_chunks_under_autocast(device):
    """Tests the data types of bfloat16 training: states, weight and gradients are float32, and matrix products are
    bfloat16.
    """
    logp, _ = teacher_and_student()
    target, generator = moved(target_of("topk", logp, 1.0), device), torch.Generator().manual_seed(1)
    leaves = [torch.randn(*s, generator=generator).to(device).requires_grad_() for s in ((N, 16), (V, 16))]
    with torch.autocast(device.type, torch.bfloat16):
        whole = leaves[0] @ leaves[1].T
        total, values = through_head(
            leaves[0],
            Head(leaves[1]),
            lambda z, at: divergence(z, cut(target, *at), "jsd"),
            torch.ones(N, device=device),
            7,
        )
        total.backward()
    assert whole.dtype == torch.bfloat16
    assert values.dtype == torch.float32
    assert torch.allclose(values, divergence(whole, target, "jsd"), rtol=5e-2, atol=1e-2)
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves)


@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_no_chunk_synchronizes_with_the_device(device, name, kind):
    """Neither forward nor backward synchronizes with the device if the target's `largest` is set.

    With a larger vocabulary than in this test, adaptive KL does synchronize: it checks whether the first thousand ids
    hold half of the probability.
    """
    logp, _ = teacher_and_student()
    target = moved(target_of(kind, logp, 2.0), device)
    if kind == "topk":
        target = replace(target, largest=V - 1)
    hidden, weight = (torch.randn(size, 16).to(device).requires_grad_() for size in (N, V))
    weights = torch.ones(N, device=device)
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        total, _ = through_head(
            hidden, Head(weight), lambda z, at: divergence(z, cut(target, *at), name, temperature=2.0), weights, 7
        )
        total.backward()
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert bool(hidden.grad.isfinite().all())


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_ids_outside_the_students_vocabulary_have_no_mass(device, kind):
    logp, z = teacher_and_student()
    target = target_of(kind, logp, 1.0, 64)
    here = value_and_gradient(loss_of(target, "forward_kl"), z[:, :200])
    there = value_and_gradient(loss_of(moved(target, device), "forward_kl"), z[:, :200].to(device))
    for a, b in zip(there, here, strict=True):
        assert torch.allclose(a.cpu(), b, atol=1e-5)
