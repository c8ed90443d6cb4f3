"""The loss core against float64, its own theory, and planted errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from torch.nn import functional

from distill import losses
from distill.data import sampled_batch, topk_batch
from distill.losses import Dense, Labels, Sampled, TopK, cut, divergence
from distill.output_layer import Head, logits_of, through_head
from synthgen import logits
from synthgen.lm.sampling import invert, top_k
from synthgen.tables.divergences import TABLE, Divergence, refusal

V, N, DRAWS = 257, 40, 20
TEMPERATURES = [0.5, 1.0, 2.0]
DEFINED = [(name, kind) for name, row in TABLE.items() for kind, reason in row.items() if reason is None]
REFUSED = [(name, kind) for name, row in TABLE.items() for kind, reason in row.items() if reason]
SHAPES = {
    "jsd": [{"beta": b} for b in (0.0, 0.1, 0.5, 0.9, 1.0)],
    "skew_kl": [{}, {"alpha": 0.5}, {"alpha": 0.0}],
    "skew_reverse_kl": [{}, {"alpha": 0.5}, {"alpha": 0.0}],
}


def teacher_and_student(seed: int = 0, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(N, V, generator=generator) * scale
    student = torch.randn(N, V, generator=generator) * scale
    return teacher.log_softmax(-1), student


def value_and_gradient(loss, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    z = z.clone().requires_grad_()
    value = loss(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def loss_of(target: losses.Target, name: str, **more):
    return lambda z: divergence(z, target, name, **more)


def exact_of(name: str, target: losses.Target, logp: torch.Tensor, temperature: float, **shape):
    return lambda z: exact(name, target, logp, z, temperature, **shape)


def draw(logp: torch.Tensor, draws: int, temperature: float, seed: int) -> logits.Sampled:
    u = torch.from_numpy(np.random.default_rng(seed).random((len(logp), draws)))
    cdf = (logp / temperature).softmax(-1).double().cumsum(-1)
    return logits.count_draws(invert(cdf, u).numpy())


def target_of(kind: str, logp: torch.Tensor, temperature: float, k: int = 8) -> losses.Target:
    """A target of one kind from log-probabilities (N, V), as the product makes them."""
    if kind == "dense":
        return Dense(logp)
    if kind == "labels":
        return Labels(torch.arange(len(logp)) * 3 % logp.shape[-1])
    if kind == "sampled":
        return Sampled(*sampled_batch([draw(logp, DRAWS, temperature, 0)], DRAWS))
    ids, kept, tail, log_z = top_k(logp, k, temperature)
    return TopK(ids.long(), kept, tail, log_z)


def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * (a.log() - b.log())).masked_fill(a == 0, 0).sum(-1)


def head_of(p: torch.Tensor, bucket: bool) -> torch.Tensor:
    """Which outcomes are the fewest with half the teacher's mass; by a loop."""
    head = torch.zeros_like(p, dtype=torch.bool)
    for row, inside in zip(p, head, strict=True):
        mass = 0.0
        for i in row[: -1 if bucket else None].argsort(descending=True).tolist():
            if mass >= 0.5:
                break
            inside[i], mass = True, mass + float(row[i])
    return head


def exact(
    name: str, target: losses.Target, logp: torch.Tensor, z: torch.Tensor, temperature: float, beta=0.5, alpha=0.1
):
    """The definition, in probabilities and float64, over the full vocabulary; autograd gives its gradient."""
    p, q = (logp.double() / temperature).softmax(-1), (z.double() / temperature).softmax(-1)
    if name == "mse":
        a, b = logp.double(), z.double()
        return 0.5 * ((b - b.mean(-1, keepdim=True)) - (a - a.mean(-1, keepdim=True))).square().mean(-1)
    if isinstance(target, Labels):
        p = functional.one_hot(target.ids_N, z.shape[-1]).double()
    if isinstance(target, Sampled):
        p = torch.zeros_like(p).scatter_add_(-1, target.ids_NU, target.weights_NU.double())
    if isinstance(target, Labels | Sampled):
        return temperature**2 * -(p * q.log()).sum(-1)
    if isinstance(target, TopK):
        outside = torch.ones_like(p, dtype=torch.bool).scatter(-1, target.ids_NK, False)
        p, q = (torch.cat([x.gather(-1, target.ids_NK), (x * outside).sum(-1, keepdim=True)], -1) for x in (p, q))
        if target.ids_NK.shape[-1] == z.shape[-1]:
            p, q = p[:, :-1], q[:, :-1]
    if name == "cross_entropy":
        value = -(p * q.log()).sum(-1)
    elif name == "forward_kl" or (name == "jsd" and beta == 0):
        value = kl(p, q)
    elif name == "reverse_kl" or (name == "jsd" and beta == 1):
        value = kl(q, p)
    elif name == "jsd":
        m = beta * p + (1 - beta) * q
        value = (beta * kl(p, m) + (1 - beta) * kl(q, m)) / (beta * (1 - beta))
    elif name == "skew_kl":
        value = kl(p, alpha * p + (1 - alpha) * q)
    elif name == "skew_reverse_kl":
        value = kl(q, (1 - alpha) * p + alpha * q)
    else:
        head = head_of(p.detach(), isinstance(target, TopK) and target.ids_NK.shape[-1] < z.shape[-1])
        gap = (p - q).abs().detach()
        g_head, g_tail = (gap * head).sum(-1), (gap * ~head).sum(-1)
        value = (g_head * kl(p, q) + g_tail * kl(q, p)) / (g_head + g_tail)
    return temperature**2 * value


def close(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error, relative to one or to what is expected, whichever is larger."""
    return float(((value.double() - expected).abs() / expected.abs().clamp(min=1)).max())


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


def test_reverse_kl_of_draws_would_be_infinite():
    """Why the table refuses it: most ids are never drawn."""
    logp, z = teacher_and_student()
    target = target_of("sampled", logp, 1.0)
    histogram = torch.zeros_like(logp).scatter_add_(-1, target.ids_NU, target.weights_NU)
    assert bool(divergence(z, Dense(histogram.log()), "reverse_kl").isinf().all())
    assert "histogram with zeros" in refusal("reverse_kl", "sampled")


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("name", "kind"), [pair for pair in DEFINED if pair[1] in ("dense", "topk")])
def test_zero_loss_and_gradient_when_student_is_teacher(name, kind, temperature):
    """Cross-entropy's value is then the teacher's entropy; its gradient is zero all the same."""
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
    """Coarser distributions are never farther apart; the wider the head, the nearer."""
    logp, z = teacher_and_student()
    for name in ("forward_kl", "reverse_kl", "jsd", "skew_kl"):
        values = [
            divergence(z, target_of("topk", logp, temperature, k), name, temperature=temperature) for k in (1, 8, 64, V)
        ]
        values.append(divergence(z, Dense(logp), name, temperature=temperature))
        for narrow, wide in pairwise(values):
            assert bool((narrow <= wide + 1e-4).all()), name


def test_jsd_tends_to_forward_and_reverse_kl():
    """Divided by β(1−β): a small β is not a small gradient."""
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
    if name == "adaptive_kl" and kind == "dense":  # equal half floats at the head's edge may stand on either side
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
    """Student padded by 30 ids, teacher by `beyond`: as if neither was; padded logits get no gradient."""
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


@pytest.mark.parametrize("beyond", [0, 30])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_labels_beside_a_target_against_float64(name, kind, temperature, beyond):
    """Both values, and the gradient of any mixture, as the two by themselves: labels in the support and outside of it,
    over the whole width of a student whose vocabulary is padded."""
    logp, z = teacher_and_student()
    z = torch.cat([z, torch.full((N, beyond), 1.5)], -1)
    target = target_of(kind, logp, temperature, 8)
    if kind == "topk":
        target = replace(target, largest=V - 1)  # as shards are read
    ids = target.ids_NK if kind == "topk" else target.ids_NU if kind == "sampled" else torch.zeros(N, 1).long()
    inside = torch.arange(N) % 2 == 0
    labels = torch.where(inside, ids[:, 0], torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(2)))
    mixed = torch.rand(N, 2, generator=torch.Generator().manual_seed(3))
    for shape in SHAPES.get(name, [{}]):
        more = {"temperature": temperature, "vocabulary": V, **shape}
        found: list[torch.Tensor] = []

        def together(z, more=more, found=found):
            found.append(losses.with_cross_entropy(z, target, labels, name, **more))
            return found[0] * mixed

        def apart(z, shape=shape):
            far = exact(name, target, logp, z[:, :V], temperature, **shape)
            near = torch.nn.functional.cross_entropy(z, labels, reduction="none")
            return torch.stack([far, near], -1) * mixed.double()

        value, gradient = value_and_gradient(together, z)
        expected, expected_gradient = value_and_gradient(apart, z.double())
        assert close(value, expected) < 1e-5
        assert close(gradient, expected_gradient) < 1e-5
        far = divergence(z, target, name, **more)
        assert torch.allclose(found[0], torch.stack([far, losses.cross_entropy(z, labels)], -1), atol=1e-5)


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
    """What makes it worth having: at temperature 1 the (N, V) logits are reduced once."""
    logp, z = teacher_and_student()
    calls = []
    real = torch.Tensor.logsumexp
    monkeypatch.setattr(
        torch.Tensor, "logsumexp", lambda self, *some, **more: calls.append(1) or real(self, *some, **more)
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


HEADS = {"plain": {}, "scaled": {"scale": 0.25}, "capped": {"softcap": 3.0}, "both": {"scale": 2.0, "softcap": 3.0}}


@pytest.mark.parametrize("chunk", [1, 7, N, None])
@pytest.mark.parametrize(("name", "kind"), DEFINED)
def test_chunks_through_the_head_against_float64(name, kind, chunk):
    """Hidden states, weight and bias: values and gradients for every pair, whatever the chunk size and the head."""
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
    """Packing, order and batch do not matter: a token's value and gradient are the same alone as among others."""
    logp, z = teacher_and_student()
    target = target_of(kind, logp, 2.0)
    value, gradient = value_and_gradient(lambda z: divergence(z, target, name, temperature=2.0), z)
    for a, b in ((0, 1), (3, 20), (20, N)):
        alone = value_and_gradient(loss_of(cut(target, a, b), name, temperature=2.0), z[a:b])
        assert torch.allclose(alone[0], value[a:b], atol=1e-6)
        assert torch.allclose(alone[1], gradient[a:b], atol=1e-6)


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
    """How many standard errors each token's stored loss is from its expectation, the full cross-entropy.

    The student is the teacher: its loss is then the entropy, which a lost tail lowers at every token.
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
    """The mean over many tokens is within 3 standard errors of the full cross-entropy; so is the gradient."""
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


def test_cross_entropy_is_torchs():
    _, z = teacher_and_student()
    labels = torch.arange(N)
    value, gradient = value_and_gradient(lambda z: losses.cross_entropy(z, labels), z)
    expected, expected_gradient = value_and_gradient(
        lambda z: functional.cross_entropy(z, labels, reduction="none"), z.double()
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
