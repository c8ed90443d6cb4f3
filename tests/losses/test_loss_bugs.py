"""Nineteen bugs that were found in distillation tools other than synthgen. Each bug has a test that fails when synthgen
has the bug.

`make loss-bugs` plants each bug in a copy of the source and shows that its test fails.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.rows import load
from support.training import LOOSE
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from distill import losses
from distill.data import Choice, Example
from distill.losses import Dense, Labels, TopK, cut, divergence
from distill.output_layer import Head, completion_states, logits_of, output_head, through_head
from distill.students.layers import from_layers
from distill.targets.stored import Rows, batch_loss
from synthgen import logits
from synthgen.lm.sampling import invert, top_k
from synthgen.lm.tokens import Tokens
from synthgen.recipe import TrainSection

V, K, DRAWS = 97, 8, 20
SMALL = {"vocab_size": V, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.4}
LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA |= {"num_key_value_heads": 2, "max_position_embeddings": 64}


def model_of(name: str = "Llama", **config_keys):
    """A small model with random weights. `name` is its class name in transformers without 'ForCausalLM'.

    With attn_implementation="eager" batches are padded. With other attention implementations, batches are packed if the
    model allows packing.
    """
    import transformers

    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64} if name == "GPT2" else LLAMA
    config = getattr(transformers, f"{name}Config")(**SMALL, **sizes, **config_keys)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def teacher_logp(rows: int, seed: int = 0, vocabulary: int = V) -> torch.Tensor:
    return (torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2).log_softmax(-1)


def topk_target(logp: torch.Tensor, temperature: float = 1.0, k: int = K) -> TopK:
    ids, kept, tail, log_z = top_k(logp, k, temperature)
    return TopK(ids.long(), kept, tail, log_z)


def examples(kind: str = "topk", temperature: float = 1.0) -> tuple[list[Example], dict, list[torch.Tensor]]:
    """(three rows of different lengths, one of which is not kept; metadata of the shards; the teacher's
    log-probabilities for each row).
    """
    lengths, rows, teachers = [(2, 3, True), (9, 7, False), (5, 1, True)], [], []
    for row, (prompt, completion, kept) in enumerate(lengths):
        random = np.random.default_rng(row)
        logp = teacher_logp(completion, seed=row)
        teachers.append(logp)
        if kind == "topk":
            target = logits.TopK(*(part.numpy() for part in top_k(logp, K, temperature)))
        else:
            cdf = (logp / temperature).softmax(-1).double().cumsum(-1)
            target = logits.count_draws(invert(cdf, torch.from_numpy(random.random((completion, DRAWS)))).numpy())
        tokens = [random.integers(3, V, n).tolist() for n in (prompt, completion)]
        rows.append(Example(str(row), *tokens, target, kept))
    size = {"k": K} if kind == "topk" else {"draws": DRAWS}
    return rows, {"kind": kind, **size, "temperature": temperature, "vocab_size": V}, teachers


def loss_and_gradient(model, batch, meta, section, step=None) -> tuple[float, dict[str, float], torch.Tensor]:
    """The package's loss of a batch and the gradient of all parameters as one vector."""
    model.zero_grad()
    head = output_head(model)
    states = completion_states(model, head, [e.prompt for e in batch], [e.completion for e in batch])
    loss, parts = batch_loss(states, head, Rows(batch, step or batch), section, meta)
    loss.backward()
    return float(loss.detach()), parts, torch.cat([p.grad.flatten().clone() for p in model.parameters()])


def logits_alone(model, example: Example) -> torch.Tensor:
    """The logits that predict the completion, from a forward pass over this row alone."""
    ids = torch.tensor([example.prompt + example.completion])
    return model(ids).logits[0, len(example.prompt) - 1 : -1]


def plain_kl(logp: torch.Tensor, z: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL of each token in float64, over K + 1 outcomes: the teacher's top K ids, and all other ids together."""
    p, q = (logp.double() / temperature).softmax(-1), (z.double() / temperature).softmax(-1)
    ids = logp.topk(K).indices
    p, q = (torch.cat([x.gather(-1, ids), 1 - x.gather(-1, ids).sum(-1, keepdim=True)], -1) for x in (p, q))
    return temperature**2 * (p * (p / q).log()).sum(-1)


def plain_loss(model, batch, teachers, weight: float, temperature: float = 1.0) -> torch.Tensor:
    """The documented loss of one step, computed row by row without padding."""
    kd, ce, kept = [], [], []
    for example, logp in zip(batch, teachers, strict=True):
        z = logits_alone(model, example)
        kd.append(plain_kl(logp, z, temperature))
        if example.kept:
            ce.append(functional.cross_entropy(z.double(), torch.tensor(example.completion), reduction="none"))
            kept.append(len(example.completion))
    return weight * torch.cat(kd).mean() + (1 - weight) * torch.cat(ce).sum() / sum(kept)


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "adaptive_kl"])
def test_bug_01_padding_in_the_loss(loss):
    """Rows of 3, 7 and 1 tokens are in one padded batch. The mean is over 11 tokens, not over 21 positions."""
    batch, meta, teachers = examples()
    model, section = model_of(), TrainSection(loss=loss, kd_weight=0.7)
    value, parts, gradient = loss_and_gradient(model, batch, meta, section)
    if loss == "forward_kl":
        expected = plain_loss(model, batch, teachers, 0.7)
        model.zero_grad()
        expected.backward()
        assert value == pytest.approx(float(expected.detach()), rel=1e-5)
        assert torch.allclose(gradient, torch.cat([p.grad.flatten() for p in model.parameters()]), atol=1e-5)
    alone = [loss_and_gradient(model, [e], meta, section)[1]["distillation"] * len(e.completion) for e in batch]
    assert parts["distillation"] == pytest.approx(sum(alone) / 11, rel=1e-5)


@pytest.mark.parametrize("kind", ["topk", "sampled"])
def test_bug_02_mean_of_micro_batch_means(kind):
    """In whatever way an optimizer step is split into micro-batches, their losses and gradients add up to those of the
    whole step.
    """
    batch, meta, _ = examples(kind)
    model, section = model_of(), TrainSection(kd_weight=0.7)
    whole = loss_and_gradient(model, batch, meta, section)
    for splits in ([1, 2], [2, 1], [1, 1, 1]):
        rows, pieces = iter(batch), []
        for size in splits:
            pieces.append(loss_and_gradient(model, [next(rows) for _ in range(size)], meta, section, step=batch))
        assert sum(piece[0] for piece in pieces) == pytest.approx(whole[0], rel=1e-5)
        for part in whole[1]:
            assert sum(piece[1][part] for piece in pieces) == pytest.approx(whole[1][part], rel=1e-5)
        assert torch.allclose(sum(piece[2] for piece in pieces), whole[2], atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bug_03_shift_by_one(attention):
    """State t predicts token t, both with packing and with padding. The cross-entropy equals the loss that transformers
    computes.
    """
    batch, meta, _ = examples()
    model = model_of(attn_implementation=attention)
    for example in batch:
        ids = torch.tensor([example.prompt + example.completion])
        labels = ids.clone()
        labels[:, : len(example.prompt)] = -100
        expected = float(model(ids, labels=labels).loss.detach())
        value = loss_and_gradient(model, [example], meta, TrainSection(kd_weight=0.0))[0]
        assert value == pytest.approx(expected, rel=1e-5)


def test_bug_04_reduction_over_the_vocabulary():
    """The loss of a token is the sum over the vocabulary, in nats. The KL from a fair coin to a 1:9 coin is 0.511."""
    coin = torch.tensor([[0.5, 0.5, 0.0]]).log()
    z = torch.tensor([[0.1, 0.9, 1e-30]]).log()
    assert float(divergence(z, Dense(coin))) == pytest.approx(
        0.5 * np.log(0.5 / 0.1) + 0.5 * np.log(0.5 / 0.9), rel=1e-5
    )
    logp, student = teacher_logp(5), teacher_logp(5, seed=1)
    expected = functional.kl_div(student, logp, log_target=True, reduction="batchmean")
    assert float(divergence(student, Dense(logp)).mean()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_bug_05_temperature_unused(temperature):
    """Training on logits of temperature T uses T for teacher and student, and multiplies the loss by T²."""
    batch, meta, teachers = examples(temperature=temperature)
    model = model_of()
    value, _, gradient = loss_and_gradient(model, batch, meta, TrainSection(kd_weight=1.0))
    model.zero_grad()
    expected = torch.cat(
        [plain_kl(t, logits_alone(model, e), temperature) for e, t in zip(batch, teachers, strict=True)]
    ).mean()
    expected.backward()
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    assert torch.allclose(gradient, torch.cat([p.grad.flatten() for p in model.parameters()]), atol=1e-5)


def test_bug_06_jsd_mixture_swapped():
    """The mixture is M = βp + (1−β)q, where p is the teacher."""
    logp, z = teacher_logp(5), teacher_logp(5, seed=1)
    p, q = logp.double().exp(), z.double().exp()
    m = 0.1 * p + 0.9 * q
    expected = (0.1 * (p * (p / m).log()).sum(-1) + 0.9 * (q * (q / m).log()).sum(-1)) / 0.09
    assert torch.allclose(divergence(z, Dense(logp), "jsd", beta=0.1).double(), expected, rtol=1e-5)


def test_bug_07_topk_renormalised_on_both_sides():
    """If the student gives probability to ids that are not kept, the loss rises, and the gradient lowers this
    probability.
    """
    logp = teacher_logp(5)
    target = topk_target(logp)
    z = logp.clone()
    # the student gives too much probability to ids that are not kept
    z[:, :] += 4.0 * torch.ones_like(z).scatter(-1, target.ids_NK, 0)
    z.requires_grad_()
    for name in ("forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl"):
        value = divergence(z, target, name)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        outside = gradient.scatter(-1, target.ids_NK, 0)
        assert bool((value > 0.05).all()), name
        assert bool((outside.sum(-1) > 1e-2).all()), name


def test_bug_08_truncated_reverse_kl_empties_the_kept_ids():
    """After training on top-k with reverse KL, the student gives the kept ids the same total probability as the
    teacher, and not zero.
    """
    logp = teacher_logp(5)
    target = topk_target(logp)
    z = teacher_logp(5, seed=1).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        divergence(z, target, "reverse_kl").sum().backward()
        optimizer.step()
    kept, teacher = (x.gather(-1, target.ids_NK).exp().sum(-1) for x in (z.detach().log_softmax(-1), logp))
    assert torch.allclose(kept, teacher, atol=1e-2)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "mse"])
def test_bug_09_vocabulary_padding_as_zero_logits(name):
    """The student is padded to 120 ids and the teacher to 104. Padding changes no loss and gets no gradient."""
    logp, z = teacher_logp(5), teacher_logp(5, seed=1) * 3
    wide = torch.cat([z, torch.randn(5, 120 - V)], -1).requires_grad_()
    teacher = torch.cat([logp, torch.randn(5, 104 - V)], -1)
    value = divergence(wide, Dense(teacher), name, vocabulary=V)
    assert torch.allclose(value, divergence(z, Dense(logp), name), atol=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), wide)
    assert not gradient[:, V:].any()
    with pytest.raises(ValueError, match="teacher logits"):
        divergence(wide, Dense(teacher), name)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "cross_entropy"])
def test_bug_10_softmax_in_bfloat16(name):
    logp, z = teacher_logp(50).bfloat16(), teacher_logp(50, seed=1).bfloat16()
    value = divergence(z, Dense(logp), name)
    exact = divergence(z.double(), Dense(logp.double()), name)
    assert float(((value - exact) / exact).abs().max()) < 1e-5


class _Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is created in this mode."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_bug_11_fused_but_materialized():
    """No tensor in a training step's loss has nearly tokens × vocabulary elements, in forward or backward pass."""
    tokens, vocabulary = 1024, 50_000
    hidden, head = torch.randn(tokens, 4).requires_grad_(), Head(torch.randn(vocabulary, 4).requires_grad_())
    target = Labels(torch.arange(tokens))
    with _Largest() as seen:
        total, _ = through_head(
            hidden, head, lambda z, at: divergence(z, cut(target, *at), "cross_entropy"), torch.ones(tokens)
        )
        total.backward()
    assert seen.elements < 0.2 * tokens * vocabulary


def test_bug_12_wrapper_bypassed():
    """A wrapped model, such as DataParallel, is refused and not unwrapped, because its hooks must run."""
    wrapped = torch.nn.DataParallel(model_of())
    with pytest.raises(AttributeError):
        output_head(wrapped)
    with pytest.raises(AttributeError):
        completion_states(wrapped, Head(torch.zeros(V, 32)), [[3]], [[4]])


SCALED = {
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 5.0},
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 4.0},
    "Phi": {},
}


@pytest.mark.parametrize("name", SCALED)
def test_bug_13_softcap_or_scale_ignored(name):
    """Logits computed from hidden states, with soft cap, scale and bias, equal the logits that the model itself
    computes.
    """
    model = model_of(name, **SCALED[name])
    if name == "Phi":
        torch.nn.init.normal_(model.lm_head.bias)
    head = output_head(model)
    assert head is not None
    batch, _, _ = examples()
    states = completion_states(model, head, [e.prompt for e in batch], [e.completion for e in batch])
    expected = torch.cat([logits_alone(model, e) for e in batch])
    assert states.shape[-1] == 32
    assert torch.allclose(logits_of(states, head), expected, atol=1e-4)


def test_bug_13_unknown_treatment_of_logits_is_noticed(monkeypatch):
    """A model that changes its logits in another way is trained on its own complete logits."""
    model = model_of()
    monkeypatch.setattr(model.lm_head, "forward", lambda h: 3 * functional.linear(h, model.lm_head.weight))
    assert output_head(model) is None
    batch, meta, teachers = examples()
    value, _, _ = loss_and_gradient(model, batch, meta, TrainSection(kd_weight=0.7))
    assert value == pytest.approx(float(plain_loss(model, batch, teachers, 0.7).detach()), rel=1e-5)


def test_bug_14_stored_rows_against_shuffled_batches(small_run):
    """Every example has the distribution that is stored for its own id, in any order of rows."""
    recipe, run = small_run(seeds=12, curate=LOOSE)
    data = load(run / "curated", Tokens.open(recipe.teacher.model).render, Choice(512))
    stored = {}
    for path in (run / "generated" / "logits").glob("*/*.parquet"):
        shard = logits.read(path)
        stored |= {record_id: shard.target(row) for row, record_id in enumerate(shard.ids)}
    assert len(data.examples) > 8
    for example in data.examples:
        assert np.array_equal(example.target.ids, stored[example.id].ids)
        assert np.array_equal(example.target.counts, stored[example.id].counts)


@pytest.mark.parametrize(
    "name", ["forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "adaptive_kl", "mse"]
)
def test_bug_15_nan_gradient_from_minus_infinity(name):
    """Ids that are impossible for both models change no value and no gradient."""
    logp, z = teacher_logp(5), teacher_logp(5, seed=1)
    forbidden = torch.full((5, 4), -torch.inf)
    wide = torch.cat([z, forbidden], -1).requires_grad_()
    value = divergence(wide, Dense(torch.cat([logp, forbidden], -1)), name)
    (gradient,) = torch.autograd.grad(value.sum(), wide)
    narrow = z.clone().requires_grad_()
    expected = divergence(narrow, Dense(logp), name)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), narrow)
    assert torch.allclose(value, expected, atol=1e-6)
    assert torch.allclose(gradient[:, :V], expected_gradient, atol=1e-6)
    assert not gradient[:, V:].any()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bug_16_loss_depends_on_the_absolute_position(attention):
    """The loss of a row is the same alone, packed after other rows, and after padding. Position ids count only the
    row's own tokens.
    """
    batch, meta, _ = examples()
    model, section = model_of("GPT2", attn_implementation=attention), TrainSection(kd_weight=0.7)
    alone = [loss_and_gradient(model, [e], meta, section)[1]["distillation"] * len(e.completion) for e in batch]
    together = loss_and_gradient(model, batch, meta, section)[1]["distillation"]
    assert together == pytest.approx(sum(alone) / 11, rel=1e-5)


def test_bug_17_student_and_teacher_end_differently():
    """A student has all end tokens of its teacher, and learns to write them."""
    teacher = model_of()
    teacher.generation_config.eos_token_id = [2, 5]
    assert from_layers(teacher, [0]).generation_config.eos_token_id == [2, 5]
    batch, meta, _ = examples()
    ending = Example("x", batch[0].prompt, [*batch[0].completion[:-1], 2], batch[0].target, True)
    before, _, gradient = loss_and_gradient(teacher, [ending], meta, TrainSection(kd_weight=0.0))
    states = completion_states(teacher, output_head(teacher), [ending.prompt], [ending.completion])
    assert len(states) == 3
    assert before == pytest.approx(
        float(functional.cross_entropy(logits_alone(teacher, ending), torch.tensor(ending.completion)).detach()),
        rel=1e-5,
    )
    assert bool(gradient.any())


@pytest.mark.parametrize("chunk", [1, 8, 9, 42, 43, 100])
def test_bug_18_logits_and_labels_chunked_differently(chunk):
    """The number of tokens, 43, is not a multiple of the chunk size. Each token is compared with its own target."""
    hidden, head = torch.randn(43, 8), Head(torch.randn(V, 8))
    target = topk_target(teacher_logp(43))
    _, values = through_head(hidden, head, lambda z, at: divergence(z, cut(target, *at)), torch.ones(43), chunk)
    assert torch.allclose(values, divergence(logits_of(hidden, head), target), atol=1e-5)


def test_bug_19_large_negative_values_taken_for_a_mask():
    """Only −inf makes an id impossible. A logit of −2,000 is an ordinary value."""
    logp, z = teacher_logp(5), teacher_logp(5, seed=1)
    logp[:, 3], z[:, 5] = -2000.0, -3000.0
    z.requires_grad_()
    value = divergence(z, Dense(logp), "mse")
    a, b = logp.double(), z.detach().double()
    expected = 0.5 * ((b - b.mean(-1, keepdim=True)) - (a - a.mean(-1, keepdim=True))).square().mean(-1)
    assert torch.allclose(value.detach().double(), expected, rtol=1e-5)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert bool((gradient[:, [3, 5]].abs() > 1).all())


def test_loss_names_in_a_recipe_reach_the_core():
    """Each divergence of a recipe gives its own value, which depends on its own parameter."""
    batch, meta, _ = examples()
    model = model_of()
    sections = [TrainSection(kd_weight=1.0, loss=name) for name in ("forward_kl", "reverse_kl", "jsd", "adaptive_kl")]
    sections += [TrainSection(kd_weight=1.0, loss="jsd", beta=0.9), TrainSection(kd_weight=1.0, loss="skew_kl")]
    sections += [TrainSection(kd_weight=1.0, loss="skew_reverse_kl", alpha=a) for a in (0.1, 0.5)]
    values = [round(loss_and_gradient(model, batch, meta, section)[0], 6) for section in sections]
    assert len(set(values)) == len(values)
    parts = [[t.ids_NK, t.logp_NK, t.log_tail_N, t.log_z_N] for t in map(topk_target, examples()[2])]
    target = losses.TopK(*(torch.cat(part) for part in zip(*parts, strict=True)))
    z = torch.cat([logits_alone(model, e) for e in batch])
    assert values[4] == pytest.approx(float(divergence(z, target, "jsd", beta=0.9).mean().detach()), rel=1e-4)
