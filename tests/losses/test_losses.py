"""The loss functions compared with float64 definitions, and their mathematical properties."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
import torch
from support.exact_losses import (
    DEFINED,
    REFUSED,
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
from torch.nn import functional

from distill import losses
from distill.losses import Dense, divergence
from synthgen.tables.divergences import TABLE, Divergence, refusal


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_every_defined_pair_against_float64(name, kind, temperature):
    logp, z = teacher_and_student()
    for k in (1, 8, 64, V) if kind == "topk" else (0,):
        target = target_of(kind, logp, temperature, k)
        for shape in SHAPES.get(name, [{}]):
            value, gradient = value_and_gradient(loss_of(target, name, temperature=temperature, **shape), z)
            expected, expected_gradient = value_and_gradient(
                exact_of(name, target, logp, temperature, **shape), z.double()
            )
            errors = close(value, expected), close(gradient, expected_gradient)
            print(f"{name}, {kind} {k or ''} {shape or ''}: value {errors[0]:.1e}, gradient {errors[1]:.1e}")
            assert value.dtype == torch.float32
            assert max(errors) < 1e-5, (k, shape, errors)


def test_the_table_names_every_divergence_and_every_kind():
    assert set(TABLE) == set(get_args(Divergence))
    assert all(set(row) == set(losses.KINDS.values()) for row in TABLE.values())


@pytest.mark.parametrize(("name", "kind"), REFUSED)
def test_refused_pairs_say_why_in_one_line(name, kind):
    logp, z = teacher_and_student()
    with pytest.raises(ValueError) as caught:
        divergence(z, target_of(kind, logp, 1.0), name)
    assert str(caught.value) == refusal(name, kind)
    assert "\n" not in str(caught.value)
    assert str(TABLE[name][kind]) in str(caught.value)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("name", "kind"), [pair for pair in DEFINED if pair[1] in ("dense", "topk")])
def test_zero_loss_and_gradient_when_student_is_teacher(name, kind, temperature):
    """All losses and their gradients are zero, with one exception: the value of the cross-entropy is the teacher's
    entropy.
    """
    logp, _ = teacher_and_student()
    for k in (1, 5, 64, V) if kind == "topk" else (0,):
        target = target_of(kind, logp, temperature, k)
        for shape in SHAPES.get(name, [{}]):
            value, gradient = value_and_gradient(loss_of(target, name, temperature=temperature, **shape), logp + 3.0)
            if name != "cross_entropy":
                assert float(value.abs().max()) / temperature**2 < 2e-6, (k, shape)
            assert float(gradient.abs().max()) < 3e-6, (k, shape)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_topk_is_a_lower_bound(temperature):
    """Merging outcomes cannot increase a divergence. A larger k gives a value closer to the full divergence."""
    logp, z = teacher_and_student()
    for name in ("forward_kl", "reverse_kl", "jsd", "skew_kl"):
        values = [
            divergence(z, target_of("topk", logp, temperature, k), name, temperature=temperature) for k in (1, 8, 64, V)
        ]
        values.append(divergence(z, Dense(logp), name, temperature=temperature))
        for narrow, wide in pairwise(values):
            assert bool((narrow <= wide + 1e-4).all()), name


def test_jsd_tends_to_forward_and_reverse_kl():
    """The loss is divided by β(1−β). So its value and gradient do not vanish for β near 0 or 1, but are close to the
    value and gradient of a KL.
    """
    logp, z = teacher_and_student()
    for beta, limit in ((1e-3, "forward_kl"), (1 - 1e-3, "reverse_kl")):
        near = value_and_gradient(loss_of(Dense(logp.double()), "jsd", beta=beta), z.double())
        at = value_and_gradient(loss_of(Dense(logp.double()), limit), z.double())
        assert 0.7 < float(near[0].mean() / at[0].mean()) < 1.01
        assert 0.7 < float(near[1].norm() / at[1].norm()) < 1.05


def test_mse_is_the_limit_of_high_temperature():
    logp, z = teacher_and_student()
    hot = divergence(z.double(), Dense(logp.double()), "forward_kl", temperature=1e4)
    mse = divergence(z.double(), Dense(logp.double()), "mse")
    assert torch.allclose(hot, mse, rtol=1e-3)
    assert torch.allclose(divergence(z + 7, Dense(logp - 3), "mse"), mse.float(), rtol=1e-4), "constants do not matter"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_half_inputs_are_computed_in_float32(name, kind, dtype):
    logp, z = teacher_and_student()
    z, target = z.to(dtype), target_of(kind, logp, 1.0)
    if isinstance(target, Dense):
        target = Dense(logp.to(dtype))
        logp = target.logits_NV.float()
    value, gradient = value_and_gradient(lambda z: divergence(z, target, name), z)
    expected, expected_gradient = value_and_gradient(
        lambda z: exact(name, target, logp.log_softmax(-1), z, 1.0), z.double()
    )
    if name == "mse":
        expected, expected_gradient = value_and_gradient(lambda z: exact(name, target, logp, z, 1.0), z.double())
    assert value.dtype == torch.float32
    if name == "adaptive_kl" and kind == "dense":  # equal float16 values can be in or outside the head
        p = logp.softmax(-1).sort(-1, descending=True).values
        edge = (p.cumsum(-1) - p < 0.5).sum(-1, keepdim=True)
        clear = (p.gather(-1, edge) != p.gather(-1, edge - 1))[:, 0]
        assert int(clear.sum()) > N // 3
        value, expected, gradient, expected_gradient = (
            t[clear] for t in (value, expected, gradient, expected_gradient)
        )
    assert close(value, expected) < 1e-5
    assert float((gradient.double() - expected_gradient).abs().max()) < 1e-2 * float(expected_gradient.abs().max())


@pytest.mark.parametrize("beyond", [0, 15])
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_padded_vocabularies_are_cut(name, kind, beyond):
    """The student is padded by 30 ids and the teacher by `beyond` ids. Padding changes no loss and gets no gradient."""
    logp, z = teacher_and_student()
    target = target_of(kind, logp, 2.0)
    expected, expected_gradient = value_and_gradient(lambda z: divergence(z, target, name, temperature=2.0), z)
    if kind == "dense":
        target = Dense(torch.cat([logp, torch.full((N, beyond), 5.0)], -1))
    wide = torch.cat([z, torch.full((N, 30), 9.0)], -1)
    value, gradient = value_and_gradient(lambda z: divergence(z, target, name, temperature=2.0, vocabulary=V), wide)
    assert torch.allclose(value, expected, atol=1e-5)
    assert torch.allclose(gradient[:, :V], expected_gradient, atol=1e-6)
    assert not gradient[:, V:].any()
    if kind == "dense":
        with pytest.raises(ValueError, match="teacher logits"):
            divergence(wide, Dense(logp), name)


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_ids_that_the_student_has_not_hold_no_mass(kind):
    logp, z = teacher_and_student()
    narrow = 200
    value, gradient = value_and_gradient(
        lambda z: divergence(z, target_of(kind, logp, 1.0, 64), "forward_kl"), z[:, :narrow]
    )
    assert bool(value.isfinite().all())
    assert bool(gradient.isfinite().all())
    if kind == "topk":
        inside = logp[:, :narrow].log_softmax(-1)
        same, _ = value_and_gradient(
            lambda z: divergence(z, target_of(kind, logp, 1.0, V), "forward_kl"), z[:, :narrow]
        )
        assert torch.allclose(same, divergence(z[:, :narrow], Dense(inside)), atol=1e-5)


def test_cross_entropy_is_torchs():
    _, z = teacher_and_student()
    labels = torch.arange(N)
    value, gradient = value_and_gradient(lambda z: losses.cross_entropy(z, labels), z)
    expected, expected_gradient = value_and_gradient(
        lambda z: functional.cross_entropy(z, labels, reduction="none"), z.double()
    )
    assert torch.allclose(value.double(), expected, atol=1e-5)
    assert torch.allclose(gradient.double(), expected_gradient, atol=1e-6)
