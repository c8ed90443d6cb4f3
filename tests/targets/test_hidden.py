"""Terms from inside the teacher: against float64 loops, models run row by row, packing, splits, resume."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.small import small_runs, small_task, small_teacher
from test_train import Cut

import synthgen
from distill import train
from distill.data import Example
from distill.output_layer import completion_states, output_head
from distill.students.build import from_config, from_layers
from distill.targets.hidden import Inside, hidden_term, layer_pairs, relation_term
from distill.targets.layer_outputs import see
from distill.targets.stored import FromShards
from synthgen import logits
from synthgen.errors import RecipeError
from synthgen.lm import forward
from synthgen.recipe import Hidden, TrainSection
from synthgen.teachers.transformers import LocalModel

V, K = 258, 5
META = {"kind": "topk", "k": K, "temperature": 1.0, "vocab_size": V}
TERMS = [
    {"hidden": {}},
    {"hidden": {"loss": "cosine", "weight": 0.5}},
    {"relations": {"weight": 2.0}},
    {"hidden": {"layers": {0: 1}}, "relations": {"heads": 2, "layer": 0}},
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = small_teacher(tmp_path_factory.mktemp("hidden") / "teacher", layers=3)
    return LocalModel.open(synthgen.recipe.sections.TeacherSection(model=str(folder)))


def rows(same_prompt: bool = True, count: int = 7) -> list[Example]:
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        prompt, asked, completion = (rng.integers(0, 256, size).tolist() for size in (3 + n, 9 + n % 2, 1 + 2 * n))
        asked = [*range(100, 120), *asked]  # few-shot prompts begin alike
        target = logits.TopK(
            rng.permuted(np.tile(np.arange(V), (len(completion), 1)), axis=1)[:, :K].astype(np.int32),
            np.full((len(completion), K), np.log(0.9 / K), np.float32),
            np.full(len(completion), np.log(0.1), np.float32),
            np.zeros(len(completion), np.float32),
        )
        found.append(Example(str(n), prompt, completion, target, True, teacher_prompt=() if same_prompt else asked))
    return found


def section(**terms) -> TrainSection:
    return TrainSection.model_validate({"kd_weight": 0.5, **terms})


def narrow(teacher) -> torch.nn.Module:
    """A student of another depth, width and number of heads."""
    changes = {
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
    }
    return from_config(teacher.model.config, changes, 3)


def objective(model, teacher, wanted: TrainSection) -> FromShards:
    return FromShards(model, META, wanted, inside=Inside(model, teacher.model, wanted))


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


# The formulas


def relations_by_hand(a: torch.Tensor, b: torch.Tensor, heads: int, queries: int) -> torch.Tensor:
    """Σ KL over one sequence of queries, keys or values, a token and a head at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for head in range(heads):
        x, y = (part.double().chunk(heads, -1)[head] for part in (a, b))
        for i in range(len(a) - queries, len(a)):
            r = torch.stack([x[i] @ x[j] for j in range(i + 1)]) / x.shape[-1] ** 0.5
            t = torch.stack([y[i] @ y[j] for j in range(i + 1)]) / y.shape[-1] ** 0.5
            p = t.softmax(-1)
            total = total + (p * (p.log() - r.log_softmax(-1))).sum()
    return total / heads


def hidden_by_hand(h: torch.Tensor, t: torch.Tensor, loss: str) -> torch.Tensor:
    h, t = h.double(), t.double()
    if loss == "cosine":
        return sum(1 - (a @ b) / (a @ a).sqrt() / (b @ b).sqrt() for a, b in zip(h, t, strict=True))
    a, b = ((x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() for x in (h, t))
    return ((a - b) ** 2).sum() / t.shape[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["mse", "cosine"])
def test_hidden_term_against_float64(loss, dtype):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(11, 6, generator=generator).to(dtype).requires_grad_()
    w = torch.randn(10, 6, generator=generator).to(dtype).requires_grad_()
    t = (3 * torch.randn(11, 10, generator=generator)).to(dtype)
    for weight, target in ((w, t), (None, t[:, :6])):
        value = hidden_term(h, target, weight, loss)
        wanted = hidden_by_hand(h if weight is None else h.double() @ weight.double().T, target, loss)
        assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
        over = [h] if weight is None else [h, w]
        for a, b in zip(torch.autograd.grad(value, over), torch.autograd.grad(wanted, over), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    assert float(hidden_term(t, t, None, loss)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("heads", "queries"), [(1, 9), (2, 4), (4, 1)])
def test_relation_term_against_float64(heads, queries, dtype):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(9, 8, generator=generator).to(dtype).requires_grad_()
    b = torch.randn(9, 12, generator=generator).to(dtype)
    value, wanted = relation_term(a, b, heads, queries), relations_by_hand(a, b, heads, queries)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    ((x,), (y,)) = (torch.autograd.grad(v, a) for v in (value, wanted))
    assert torch.allclose(x, y, atol=1e-5)
    assert float(relation_term(b, b, heads, queries)) == 0
    # Longer prompts on one side: completion tokens alone are related.
    longer = torch.cat([torch.ones(3, 12, dtype=dtype), b])
    last = relation_term(a, longer, heads, queries, keys=queries)
    assert float(last) == pytest.approx(float(relations_by_hand(a[-queries:], b[-queries:], heads, queries)), rel=1e-5)


def test_a_prompt_without_tokens_is_refused(teacher):
    """Nothing predicts the first token of its completion; the row before it in a bin would."""
    with pytest.raises(ValueError, match="nothing predicts"):
        forward.completion_logits(teacher.model, [[1, 2], []], [[3], [4, 5]])


def test_uniform_layers():
    assert layer_pairs(Hidden(), 2, 3) == [(0, 1), (1, 2)]
    assert layer_pairs(Hidden(), 3, 12) == [(0, 3), (1, 7), (2, 11)]
    assert layer_pairs(Hidden(), 4, 2)[-1] == (3, 1)
    for s in range(1, 9):
        for t in range(1, 9):
            pairs = layer_pairs(Hidden(), s, t)
            assert pairs[-1] == (s - 1, t - 1)
            assert all(0 <= b < t for _, b in pairs)


# Models


def by_rows(model, teacher, wanted: TrainSection, batch: list[Example], inside: Inside) -> dict[str, torch.Tensor]:
    """Both terms from each model's own outputs, a row at a time: no packing, no padding, no mask."""
    total = {"hidden": torch.zeros((), dtype=torch.float64), "relations": torch.zeros((), dtype=torch.float64)}
    for e in batch:
        sides = []
        for one, prompt, depth in (
            (model, e.prompt, -1),
            (teacher.model, list(e.teacher_prompt) or e.prompt, wanted.relations and wanted.relations.layer),
        ):
            ids = torch.tensor([[*prompt, *e.completion][:-1]])
            states, qkv = {}, []
            layers = one.get_decoder().layers
            hooks = [
                layer.register_forward_hook(lambda m, i, out, n=n, s=states: s.update({n: out}))
                for n, layer in enumerate(layers)
            ]
            attention = layers[-1 if depth is None else depth].self_attn
            for name in ("q_proj", "k_proj", "v_proj"):
                hooks.append(getattr(attention, name).register_forward_hook(lambda m, i, out, q=qkv: q.append(out[0])))
            one(ids)
            for hook in hooks:
                hook.remove()
            sides.append((states, qkv))
        (mine, own), (its, other) = sides
        n = len(e.completion)
        if wanted.hidden:
            pairs = layer_pairs(wanted.hidden, len(mine), len(its))
            for k, (s, t) in enumerate(pairs):
                h = mine[s][0, -n:].double()
                h = h @ inside.projections[k].weight.double().T
                total["hidden"] = total["hidden"] + hidden_by_hand(
                    h, its[t][0, -n:].detach(), wanted.hidden.loss
                ) / len(pairs)
        if wanted.relations:
            heads = wanted.relations.heads or 1
            for a, b in zip(own, other, strict=True):
                if e.teacher_prompt:
                    a, b = a[-n:], b[-n:]
                total["relations"] = total["relations"] + relations_by_hand(a, b.detach(), heads, n)
    tokens = sum(len(e.completion) for e in batch)
    return {name: value / tokens for name, value in total.items()}


@pytest.mark.parametrize("same_prompt", [True, False])
@pytest.mark.parametrize("terms", TERMS)
def test_terms_are_those_of_each_row_alone(teacher, terms, same_prompt):
    wanted, batch, model = section(**terms), rows(same_prompt), narrow(teacher)
    inside = Inside(model, teacher.model, wanted)
    states, total, parts = inside(model, output_head(model), batch, batch)
    asked, said = [e.prompt for e in batch], [e.completion for e in batch]
    assert torch.allclose(states, completion_states(model, output_head(model), asked, said), atol=1e-5)
    expected = by_rows(model, teacher, wanted, batch, inside)
    for name, value in parts.items():
        assert value == pytest.approx(float(expected[name]), rel=1e-4), name
        assert value > 0.01
    assert set(parts) == set(terms)
    weighted = sum(getattr(wanted, name).weight * expected[name] for name in terms)
    total.backward()
    found = gradients(model) | gradients(inside)
    model.zero_grad()
    inside.zero_grad()
    weighted.backward()
    again = gradients(model) | gradients(inside)
    assert set(found) >= set(again)
    for name, value in again.items():
        assert torch.allclose(found[name], value, atol=1e-5 + 1e-4 * float(value.abs().max())), name


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("projected", [True, False])
def test_nothing_to_learn_when_the_student_is_the_teacher(teacher, terms, projected):
    if "hidden" in terms:
        terms = {**terms, "hidden": {**terms["hidden"], "projection": projected, "layers": {0: 0, 1: 1, 2: 2}}}
    if "relations" in terms:
        terms = {**terms, "relations": {**terms["relations"], "layer": 2}}
    wanted, model = section(**terms), from_layers(teacher.model, [0, 1, 2])
    inside = Inside(model, teacher.model, wanted)
    assert len(inside.projections) == (3 if projected and "hidden" in terms else 0)
    _, total, parts = inside(model, output_head(model), rows(), rows())
    assert all(abs(value) < 1e-5 for value in parts.values()), parts
    total.backward()
    largest = max(float(g.abs().max()) for g in (gradients(model) | gradients(inside)).values())
    assert largest < 1e-4
    _, _, other = inside(model, output_head(model), rows(False), rows(False))
    assert all(value > 0.01 for value in other.values()), "another prompt is another state"


@pytest.mark.parametrize("same_prompt", [True, False])
@pytest.mark.parametrize("terms", TERMS)
def test_packed_padded_and_split_alike(teacher, terms, same_prompt, monkeypatch):
    wanted, batch, model = section(**terms), rows(same_prompt), narrow(teacher)
    whole = objective(model, teacher, wanted)
    found = []
    for packed, size in ((True, 7), (False, 7), (True, 3), (False, 1)):
        monkeypatch.setattr(forward, "_packs", lambda model, packed=packed: packed)
        whole.zero_grad()
        sums: dict[str, float] = {}
        for begin in range(0, len(batch), size):
            loss, parts = whole(batch[begin : begin + size], batch)
            loss.backward()
            assert float(loss.detach()) == pytest.approx(parts["loss"], rel=1e-5)
            sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
        found.append((sums, gradients(whole)))
    values, grads = found[0]
    weighted = sum(getattr(wanted, name).weight * values[name] for name in terms)
    kd = 0.5 * values["distillation"] + 0.5 * values["cross_entropy"]
    assert values["loss"] == pytest.approx(kd + weighted, rel=1e-5)
    for other, more in found[1:]:
        assert other == pytest.approx(values, rel=1e-4)
        for name, value in grads.items():
            assert torch.allclose(more[name], value, atol=1e-5 + 1e-4 * float(value.abs().max())), name


def test_a_model_whose_output_layer_is_not_known(teacher):
    """Without a head the logits themselves come along: what the loss takes, and the same terms."""
    wanted, batch, model = section(**TERMS[3]), rows(), narrow(teacher)
    inside = Inside(model, teacher.model, wanted)
    head = output_head(model)
    with torch.no_grad():
        states, total, _ = inside(model, head, batch, batch)
        z, again, _ = inside(model, None, batch, batch)
    assert float(total) == pytest.approx(float(again), rel=1e-6)
    assert torch.allclose(states @ head.weight_VD.T, z, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients(teacher):
    wanted, batch, found = section(**TERMS[3]), rows(), []
    for save_memory in (False, True):
        model = narrow(teacher).train()
        if save_memory:
            model.gradient_checkpointing_enable()
        whole = objective(model, teacher, wanted)
        loss, _ = whole(batch, batch)
        loss.backward()
        found.append((float(loss.detach()), gradients(whole)))
    (a, first), (b, second) = found
    assert a == pytest.approx(b)
    for name, value in first.items():
        assert torch.allclose(second[name], value, atol=1e-6), name


def test_fused_queries_keys_and_values(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=12, n_layer=2, n_head=3, n_positions=64)).eval()
    wanted = section(relations={"heads": 3}, hidden={"projection": False, "layers": {1: 1}})
    inside = Inside(model, model, wanted)
    with torch.no_grad():
        _, _, parts = inside(model, output_head(model), rows(), rows())
    assert all(abs(value) < 1e-5 for value in parts.values())
    seen = []
    hook = model.transformer.h[1].attn.c_attn.register_forward_hook(lambda m, i, out: seen.append(out[0]))
    e = rows()[3]
    with torch.no_grad():
        model(torch.tensor([[*e.prompt, *e.completion][:-1]]))
        hook.remove()
        _, [found] = see(model, output_head(model), [e.prompt], [e.completion], [1], 1)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found[1:], seen[0].split(12, -1), strict=True))


def test_the_teacher_stays_as_it_is(teacher):
    before = {name: p.clone() for name, p in teacher.model.named_parameters()}
    whole = objective(narrow(teacher), teacher, section(**TERMS[3]))
    assert not [name for name, _ in whole.named_parameters() if "teacher" in name]
    loss, _ = whole(rows(), rows())
    loss.backward()
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in teacher.model.named_parameters())
    assert not any(m._forward_hooks for m in teacher.model.modules()), "nothing is left behind"


def test_bfloat16_computes_the_terms_in_float32(teacher, monkeypatch):
    for name, term in (("hidden_term", hidden_term), ("relation_term", relation_term)):

        def watched(*some, term=term, **more):
            assert not torch.is_autocast_enabled("cpu")
            return term(*some, **more)

        monkeypatch.setattr(f"distill.targets.hidden.{name}", watched)
    wanted, batch, model = section(**TERMS[3]), rows(), narrow(teacher)
    whole = objective(model, teacher, wanted)
    with torch.no_grad():
        _, exact = whole(batch, batch)
        with torch.autocast("cpu", torch.bfloat16):
            _, half = whole(batch, batch)
    assert half["hidden"] == pytest.approx(exact["hidden"], rel=0.02)
    assert half["relations"] == pytest.approx(exact["relations"], rel=0.05)


# From the recipe to the student


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return small_runs(tmp_path_factory.mktemp("inside"))


NARROW = {"config": {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 12}}
LORA = {"layers": 1, "lora": {"r": 2, "target_modules": ["q_proj"]}}


def trained(made, out, student=NARROW, cut=None, **changes):
    recipe, run = made("one", logits={"kind": "topk", "k": 9}, split={"test": 0.25, "validation": 0.25}, seeds=16)
    values = (
        recipe.train.model_dump(mode="json", exclude_none=True) | {"student": {"kind": "decoder", **student}} | changes
    )
    recipe = recipe.model_copy(update={"train": TrainSection.model_validate(values)})
    return train(recipe, run, out, ui=Cut(cut) if cut else None)


@pytest.mark.parametrize("student", [NARROW, LORA])
def test_resume_takes_the_projection_back(made, tmp_path, student):
    more = {
        "hidden": {"layers": {0: 1}},
        "relations": {},
        "save_steps": 1,
        "save_total_limit": 3,
        "baseline": False,
    }
    more |= {"max_steps": 5, "eval_steps": 2, "patience": 9, "learning_rate": 0.02}
    whole = trained(made, tmp_path / "whole", student, **more)
    names = load_file(whole / "model.safetensors")
    assert not [name for name in names if "projection" in name or "inside" in name]
    for steps in (1, 3):
        out = tmp_path / f"cut-{steps}"
        with pytest.raises(KeyboardInterrupt):
            trained(made, out, student, cut=steps, **more)
        last = sorted((out / "checkpoints").glob("distilled-0*.safetensors"))[-1]
        with safe_open(last, "pt") as file:
            weight = file.get_tensor("weight.inside.projections.0.weight")
            assert float(file.get_tensor("exp_avg.inside.projections.0.weight").abs().max()) > 0
        assert weight.shape == (16, 8 if student is NARROW else 16)
        trained(made, out, student, **more)
        for name in ("model.safetensors", "metrics.jsonl", "training.json", "README.md"):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (steps, name)


def test_the_terms_fall_and_are_on_the_card(made, tmp_path):
    more = {"max_steps": 60, "num_train_epochs": 60, "learning_rate": 0.02, "kd_weight": 1.0, "baseline": False}
    out = trained(made, tmp_path / "student", hidden={"loss": "cosine"}, relations={"heads": 2}, **more)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for name in ("hidden", "relations"):
        first, last = (sum(m[name] for m in some) / 4 for some in (metrics[:4], metrics[-4:]))
        assert last < 0.8 * first, name
    words = (
        "hidden states (cosine, layers 0 from 1, learned projections, weight 1) and attention relations (the last layer"
    )
    assert words in (out / "README.md").read_text()
    assert words in json.loads((out / "training.json").read_text())["learned from"]


def test_the_baseline_knows_nothing_of_it(made, tmp_path):
    out = trained(made, tmp_path / "student", hidden={}, max_steps=2)
    assert "hidden" in json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert "hidden" not in json.loads((out / "baseline" / "metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden": {"layers": {0: 2}}}, "the teacher 0 to 1"),
        ({"hidden": {"layers": {}}}, "is empty"),
        ({"hidden": {"projection": False}}, "the student is 8 wide and the teacher 16"),
        ({"relations": {"layer": 2}}, "the teacher has layers 0 to 1"),
        ({"relations": {"heads": 3}}, "does not divide"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(made, tmp_path, changes, says):
    with pytest.raises(RecipeError, match=says) as caught:
        trained(made, tmp_path / "student", **changes)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "student" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"student": {"kind": "classifier"}, "hidden": {}}, "layers of a decoder"),
        ({"hidden": {"loss": "l1"}}, "'mse' or 'cosine'"),
        ({"relations": {"weight": 0}}, "greater than 0"),
    ],
)
def test_recipes_that_make_no_sense(tmp_path, changes, says):
    path = small_task(tmp_path / "task", tmp_path, train={"student": {"kind": "decoder"}, **changes})
    with pytest.raises(RecipeError, match=says):
        synthgen.load_recipe(path)
