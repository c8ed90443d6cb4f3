"""Losses on hidden states and relations against float64 loops and models run row by row; packing, split steps,
resuming.
"""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.layers import META, NARROW, V, gradients, narrow, rows, section, trained
from support.small import small_task, small_teacher
from support.training import curve_of, metrics_of, training_of

import synthgen
from distill.data import Example
from distill.output_layer import completion_states, output_head
from distill.students.layers import from_layers
from distill.targets.hidden import LayerTerms, hidden_term, layer_pairs, relation_term
from distill.targets.layer_outputs import see
from distill.targets.stored import FromStored
from synthgen.errors import RecipeError
from synthgen.lm import forward
from synthgen.lm.weights import Weights
from synthgen.recipe import Hidden, TrainSection
from synthgen.tables.engines import TeacherSection

TERMS = [
    {"hidden": {}},
    {"hidden": {"loss": "cosine", "weight": 0.5}},
    {"relations": {"weight": 2.0}},
    {"hidden": {"layers": {0: 1}}, "relations": {"heads": 2, "layer": 0}},
]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = small_teacher(tmp_path_factory.mktemp("hidden") / "teacher", layers=3)
    return Weights.load(TeacherSection(model=str(folder)))


def objective(model, teacher, wanted: TrainSection) -> FromStored:
    return FromStored(model, wanted, META, LayerTerms(model, teacher.model, wanted))


# The formulas


def relations_by_hand(a: torch.Tensor, b: torch.Tensor, heads: int, queries: int) -> torch.Tensor:
    """The KL between the relations of `a` and `b` (queries, keys or values of one sequence), summed over tokens and
    heads in a loop.
    """
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
    # The teacher has a longer prompt here, so only completion tokens are related to each other.
    longer = torch.cat([torch.ones(3, 12, dtype=dtype), b])
    last = relation_term(a, longer, heads, queries, keys=queries)
    assert float(last) == pytest.approx(float(relations_by_hand(a[-queries:], b[-queries:], heads, queries)), rel=1e-5)


def test_a_prompt_without_tokens_is_refused(teacher):
    """After an empty prompt, no position predicts the first token of the completion. In a packed bin, the last token of
    the previous row would predict it.
    """
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


def by_rows(model, teacher, wanted: TrainSection, batch: list[Example], terms: LayerTerms) -> dict[str, torch.Tensor]:
    """Both loss terms from each model's own outputs, row by row: without packing, padding or masks."""
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
        (student_states, own), (teacher_states, other) = sides
        n = len(e.completion)
        if wanted.hidden:
            pairs = layer_pairs(wanted.hidden, len(student_states), len(teacher_states))
            for k, (s, t) in enumerate(pairs):
                h = student_states[s][0, -n:].double() @ terms.projections[k].weight.double().T
                far = hidden_by_hand(h, teacher_states[t][0, -n:].detach(), wanted.hidden.loss)
                total["hidden"] = total["hidden"] + far / len(pairs)
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
    losses = LayerTerms(model, teacher.model, wanted)
    states, total, parts = losses(model, output_head(model), batch, batch)
    prompts, completions = [e.prompt for e in batch], [e.completion for e in batch]
    assert torch.allclose(states, completion_states(model, output_head(model), prompts, completions), atol=1e-5)
    expected = by_rows(model, teacher, wanted, batch, losses)
    for name, value in parts.items():
        assert value == pytest.approx(float(expected[name]), rel=1e-4), name
        assert value > 0.01
    assert set(parts) == set(terms)
    weighted = sum(getattr(wanted, name).weight * expected[name] for name in terms)
    total.backward()
    computed = gradients(model) | gradients(losses)
    model.zero_grad()
    losses.zero_grad()
    weighted.backward()
    by_hand = gradients(model) | gradients(losses)
    assert set(computed) >= set(by_hand)
    for name, value in by_hand.items():
        assert torch.allclose(computed[name], value, atol=1e-5 + 1e-4 * float(value.abs().max())), name


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("projected", [True, False])
def test_nothing_to_learn_when_the_student_is_the_teacher(teacher, terms, projected):
    if "hidden" in terms:
        terms = {**terms, "hidden": {**terms["hidden"], "projection": projected, "layers": {0: 0, 1: 1, 2: 2}}}
    if "relations" in terms:
        terms = {**terms, "relations": {**terms["relations"], "layer": 2}}
    wanted, model = section(**terms), from_layers(teacher.model, [0, 1, 2])
    losses = LayerTerms(model, teacher.model, wanted)
    assert len(losses.projections) == (3 if projected and "hidden" in terms else 0)
    _, total, parts = losses(model, output_head(model), rows(), rows())
    assert all(abs(value) < 1e-5 for value in parts.values()), parts
    total.backward()
    largest = max(float(g.abs().max()) for g in (gradients(model) | gradients(losses)).values())
    assert largest < 1e-4
    _, _, other = losses(model, output_head(model), rows(False), rows(False))
    assert all(value > 0.01 for value in other.values()), "another prompt is another state"


@pytest.mark.parametrize("same_prompt", [True, False])
@pytest.mark.parametrize("terms", TERMS)
def test_packed_padded_and_split_alike(teacher, terms, same_prompt, monkeypatch):
    wanted, batch, model = section(**terms), rows(same_prompt), narrow(teacher)
    whole = objective(model, teacher, wanted)
    results = []
    for packed, size in ((True, 7), (False, 7), (True, 3), (False, 1)):
        monkeypatch.setattr(forward, "packs", lambda model, packed=packed: packed)
        whole.zero_grad()
        sums: dict[str, float] = {}
        for begin in range(0, len(batch), size):
            loss, parts = whole(batch[begin : begin + size], batch)
            loss.backward()
            assert float(loss.detach()) == pytest.approx(parts["loss"], rel=1e-5)
            sums = {name: sums.get(name, 0.0) + value for name, value in parts.items()}
        results.append((sums, gradients(whole)))
    values, grads = results[0]
    weighted = sum(getattr(wanted, name).weight * values[name] for name in terms)
    kd = 0.5 * values["distillation"] + 0.5 * values["cross_entropy"]
    assert values["loss"] == pytest.approx(kd + weighted, rel=1e-5)
    for sums, others in results[1:]:
        assert sums == pytest.approx(values, rel=1e-4)
        for name, value in grads.items():
            assert torch.allclose(others[name], value, atol=1e-5 + 1e-4 * float(value.abs().max())), name


def test_a_model_whose_output_layer_is_not_known(teacher):
    """If the output layer of a model is not known, the model gives logits instead of states. The loss and its terms are
    the same.
    """
    wanted, batch, model = section(**TERMS[3]), rows(), narrow(teacher)
    losses, head = LayerTerms(model, teacher.model, wanted), output_head(model)
    with torch.no_grad():
        states, total, _ = losses(model, head, batch, batch)
        z, again, _ = losses(model, None, batch, batch)
    assert float(total) == pytest.approx(float(again), rel=1e-6)
    assert torch.allclose(states @ head.weight_VD.T, z, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients(teacher):
    wanted, batch, results = section(**TERMS[3]), rows(), []
    for save_memory in (False, True):
        model = narrow(teacher).train()
        if save_memory:
            model.gradient_checkpointing_enable()
        whole = objective(model, teacher, wanted)
        loss, _ = whole(batch, batch)
        loss.backward()
        results.append((float(loss.detach()), gradients(whole)))
    (a, first), (b, second) = results
    assert a == pytest.approx(b)
    for name, value in first.items():
        assert torch.allclose(second[name], value, atol=1e-6), name


def test_fused_queries_keys_and_values(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=12, n_layer=2, n_head=3, n_positions=64)).eval()
    wanted = section(relations={"heads": 3}, hidden={"projection": False, "layers": {1: 1}})
    with torch.no_grad():
        _, _, parts = LayerTerms(model, model, wanted)(model, output_head(model), rows(), rows())
    assert all(abs(value) < 1e-5 for value in parts.values())
    seen = []
    hook = model.transformer.h[1].attn.c_attn.register_forward_hook(lambda m, i, out: seen.append(out[0]))
    e = rows()[3]
    with torch.no_grad():
        model(torch.tensor([[*e.prompt, *e.completion][:-1]]))
        hook.remove()
        _, [outputs] = see(model, output_head(model), [e.prompt], [e.completion], [1], 1)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs[1:], seen[0].split(12, -1), strict=True))


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

        def watched(*arguments, term=term, **named):
            assert not torch.is_autocast_enabled("cpu")
            return term(*arguments, **named)

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


LORA = {"layers": 1, "lora": {"r": 2, "target_modules": ["q_proj"]}}


@pytest.mark.parametrize("student", [NARROW, LORA])
def test_resume_takes_the_projection_back(small_run, tmp_path, student):
    train = {
        "hidden": {"layers": {0: 1}},
        "relations": {},
        "save_steps": 1,
        "save_total_limit": 3,
        "baseline": False,
        "max_steps": 5,
        "eval_steps": 2,
        "early_stopping_patience": 9,
        "learning_rate": 0.02,
    }
    whole = trained(small_run, tmp_path / "whole", student, **train)
    names = load_file(whole / "model.safetensors")
    assert not [name for name in names if "projection" in name or "layer_terms" in name]
    for steps in (1, 3):
        out = tmp_path / f"cut-{steps}"
        with pytest.raises(KeyboardInterrupt):
            trained(small_run, out, student, cut=steps, **train)
        last = sorted((out / "checkpoints").glob("distilled-0*.safetensors"))[-1]
        with safe_open(last, "pt") as file:
            weight = file.get_tensor("weight.layer_terms.projections.0.weight")
            assert float(file.get_tensor("exp_avg.layer_terms.projections.0.weight").abs().max()) > 0
        assert weight.shape == (16, 8 if student is NARROW else 16)
        trained(small_run, out, student, **train)
        for name in ("model.safetensors", "metrics.jsonl", "training.json", "README.md"):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), (steps, name)


def test_the_terms_fall_and_are_on_the_card(small_run, tmp_path):
    train = {"max_steps": 60, "num_train_epochs": 60, "learning_rate": 0.02, "kd_weight": 1.0, "baseline": False}
    out = trained(small_run, tmp_path / "student", hidden={"loss": "cosine"}, relations={"heads": 2}, **train)
    for name in ("hidden", "relations"):
        values = curve_of(out, name)
        assert sum(values[-4:]) < 0.8 * sum(values[:4]), name
    words = (
        "hidden states (cosine, layers 0 from 1, learned projections, weight 1) and attention relations (the last layer"
    )
    assert words in (out / "README.md").read_text()
    assert words in training_of(out).learned_from


def test_the_baseline_knows_nothing_of_it(small_run, tmp_path):
    out = trained(small_run, tmp_path / "student", hidden={}, max_steps=2)
    assert "hidden" in metrics_of(out)[0]
    assert "hidden" not in metrics_of(out / "baseline")[0]


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
def test_what_does_not_fit_is_refused_before_training(small_run, tmp_path, changes, says):
    with pytest.raises(RecipeError, match=says) as caught:
        trained(small_run, tmp_path / "student", **changes)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "student" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"student": {"kind": "classifier"}, "hidden": {}}, "only decoders have layers"),
        ({"hidden": {"loss": "l1"}}, "'mse' or 'cosine'"),
        ({"relations": {"weight": 0}}, "greater than 0"),
    ],
)
def test_recipes_that_make_no_sense(tmp_path, changes, says):
    path = small_task(tmp_path / "task", tmp_path, train={"student": {"kind": "decoder"}, **changes})
    with pytest.raises(RecipeError, match=says):
        synthgen.load_recipe(path)
