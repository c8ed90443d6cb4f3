"""Online training: gradients in float64, the student's own texts, mutual learning, and exact resuming."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from support.rows import load
from support.small import small_task, small_teacher
from support.training import changed, metrics_of, resumes_everywhere, student_of
from support.unaudited import train

import synthgen
from distill import evaluate
from distill.data import Choice
from distill.students.decoder import decoder
from distill.targets import live
from distill.targets.live import LiveTeacher, Mutual, OnPolicy, key, share
from synthgen.errors import CorpusError, RecipeError, UserError
from synthgen.lm.model import LanguageModel

WRITES = {"mode": "on_policy", "lmbda": 1.0, "max_new_tokens": 12}
GENERATE = {"num_generations": 2, "max_new_tokens": 6, "shard_size": 8}


@pytest.fixture(scope="module")
def corpus_(small_run):
    return small_run(seeds=12, generate=GENERATE, logits={"kind": "topk", "k": 258})


def section_of(recipe, online: dict | None, **more):
    return changed(recipe, online=online, **more).train


def texts(run, teacher, section):
    found = live.read_texts(run / "curated", teacher.tokens, teacher.context, section, run / "cache")
    return found, found.stream.left_out


def ready(corpus_, online: dict, double: bool = False, **more):
    """(objective, rows, teacher, section). With `double`, everything is float64."""
    recipe, run = corpus_
    teacher = LanguageModel.open(recipe.teacher)
    section = section_of(recipe, online, **more)
    student = decoder(recipe.train.student, lambda: teacher.weights, 0).model
    if double:
        teacher.weights.model.double()
        student.double()
    data, _ = texts(run, teacher, section)
    kind = {"teacher": LiveTeacher, "on_policy": lambda *a: OnPolicy(*a, 10), "mutual": Mutual}[online["mode"]]
    return kind(student, teacher, section), data, teacher, section


def written_out(name: str, p: torch.Tensor, q: torch.Tensor, beta: float) -> torch.Tensor:
    """The divergence `name` by its definition, for the probabilities `p` of the teacher and `q` of the student."""
    kl = lambda a, b: (a * (a / b).log()).sum(-1)  # noqa: E731
    if name == "jsd":
        m = beta * p + (1 - beta) * q
        return (beta * kl(p, m) + (1 - beta) * kl(q, m)) / (beta * (1 - beta))
    return {"forward_kl": lambda: kl(p, q), "reverse_kl": lambda: kl(q, p)}[name]()


def reference(student, teacher, batch, section) -> torch.Tensor:
    """The loss of one step by its definition, with a forward pass for each row. (The package weights tokens in
    float32.)
    """
    t, tokens = section.online.loss_temperature, sum(len(row.completion) for row in batch)
    kept = max(1, sum(len(row.completion) for row in batch if row.kept))
    total = torch.zeros((), dtype=torch.float64)
    for row in batch:
        n = len(row.completion)
        z = student(torch.tensor([[*row.prompt, *row.completion]])).logits[0, -n - 1 : -1].double()
        with torch.no_grad():
            w = teacher(torch.tensor([[*row.teacher_prompt, *row.completion]])).logits[0, -n - 1 : -1].double()
        if section.loss == "mse":
            gap = (z - z.mean(-1, keepdim=True)) - (w - w.mean(-1, keepdim=True))
            kd = gap.square().mean(-1) / 2
        else:
            kd = t**2 * written_out(section.loss, (w / t).softmax(-1), (z / t).softmax(-1), section.beta or 0.5)
        total = total + section.kd_weight * kd.sum() / tokens
        if row.kept:
            labels = torch.tensor(row.completion)
            total = total - (1 - section.kd_weight) * z.log_softmax(-1).gather(-1, labels[:, None]).sum() / kept
    return total


def gradients(loss, model) -> dict[str, torch.Tensor]:
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True))


def same(found: dict, expected: dict, near: float) -> None:
    for name, grad in expected.items():
        scale = float(grad.abs().max())
        assert scale > 0, name
        assert float((found[name].double() - grad).abs().max()) < near * scale, name


CASES = [
    ("forward_kl", None, 1.0),
    ("reverse_kl", None, 2.0),
    ("jsd", 0.3, 1.0),
    ("mse", None, 1.0),
]


@pytest.mark.parametrize(("loss", "beta", "temperature"), CASES)
@pytest.mark.parametrize("mode", ["teacher", "on_policy"])
def test_gradients_are_those_of_float64(corpus_, mode, loss, beta, temperature):
    online = {**(WRITES if mode == "on_policy" else {"mode": mode}), "loss_temperature": temperature}
    for double, near in ((True, 3e-7), (False, 2e-5)):
        objective, data, teacher, section = ready(corpus_, online, double, loss=loss, beta=beta)
        batch = objective.begin(0, data[:6])
        assert all(row.written for row in batch) == (mode == "on_policy")
        exact = copy.deepcopy(objective.model).double()
        expected = reference(exact, copy.deepcopy(teacher.weights.model).double(), batch, section)
        found, parts = objective(batch, batch)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=near)
        assert parts["loss"] == pytest.approx(float(expected.detach()), rel=near)
        same(gradients(found, objective.model), gradients(expected, exact), near)


def test_portions_of_a_step_add_up(corpus_):
    objective, data, *_ = ready(corpus_, WRITES, double=True)
    batch = objective.begin(0, data[:6])
    whole, parts = objective(batch, batch)
    portions = [objective(batch[:1], batch), objective(batch[1:6], batch)]
    assert float(whole.detach()) == pytest.approx(sum(float(loss.detach()) for loss, _ in portions), rel=1e-12)
    for name, value in parts.items():
        assert value == pytest.approx(sum(p[name] for _, p in portions), rel=1e-12)


def test_the_teacher_reads_its_own_prompt(corpus_):
    recipe, run = corpus_
    teacher = LanguageModel.open(recipe.teacher)
    data, _ = texts(run, teacher, section_of(recipe, {"mode": "teacher"}))
    longer = [type(row)(**{**vars(row), "teacher_prompt": [5, 6, 7, *row.prompt]}) for row in data[:4]]
    objective, *_ = ready((recipe, run), {"mode": "teacher"}, double=True)
    section = objective.section
    expected = reference(objective.model, copy.deepcopy(teacher.weights.model).double(), longer, section)
    assert float(objective(longer, longer)[0].detach()) == pytest.approx(float(expected.detach()), rel=3e-7)
    assert float(objective(data[:4], data[:4])[0].detach()) != pytest.approx(float(expected.detach()), rel=1e-3)


def test_no_lambda_is_the_teacher_in_the_loop_and_near_the_stored_distribution(corpus_, tmp_path):
    """The whole vocabulary is stored, so offline training differs only by the rounding of stored values."""
    recipe, run = corpus_
    found = {}
    for name, online in (
        ("offline", None),
        ("teacher", {"mode": "teacher"}),
        ("never", {**WRITES, "lmbda": 0.0}),
    ):
        folder = student_of(recipe, run, tmp_path / name, online=online)
        found[name] = ((folder / "model.safetensors").read_bytes(), metrics_of(folder))
    assert found["never"] == found["teacher"]
    for a, b in zip(found["offline"][1], found["teacher"][1], strict=True):
        assert a["distillation"] == pytest.approx(b["distillation"], rel=2e-3)
        assert a["cross_entropy"] == pytest.approx(b["cross_entropy"], rel=1e-3)
        assert a["tokens"] == b["tokens"]


# The student's own texts


def test_written_texts_are_a_function_of_seed_step_and_row(corpus_):
    objective, data, *_ = ready(corpus_, WRITES)
    first = objective.begin(3, data[:6])
    again, *_ = ready(corpus_, WRITES)
    again.begin(0, data[6:9])
    again.writer.batch_size = 2
    assert [row.completion for row in again.begin(3, data[:6])] == [row.completion for row in first]
    assert [row.completion for row in again.begin(3, data[:3])] == [row.completion for row in first[:3]]
    assert [row.completion for row in again.begin(4, data[:6])] != [row.completion for row in first]
    assert len({tuple(row.completion) for row in objective.begin(3, data[:1] * 6)}) == 6, "rows of one prompt differ"
    other, *_ = ready(corpus_, WRITES, seed=1)
    assert [row.completion for row in other.begin(3, data[:6])] != [row.completion for row in first]
    assert len({key(0, step, row) for step in range(9) for row in range(9)} | {key(0, 1), key(1, 0)}) == 83


def test_writing_follows_the_student_and_its_temperature(corpus_):
    """Greedy decoding gives the most likely token after each prefix, with the student's current weights."""
    objective, data, teacher, _ = ready(corpus_, {**WRITES, "temperature": 0.0})
    with torch.no_grad():
        for weight in objective.model.parameters():
            weight.mul_(1.1)
    for module in objective.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.9
    longest = sorted(data, key=lambda row: -len(row.prompt))
    rows = [longest[0], longest[-1], longest[1], longest[-2]]
    assert len(rows[0].prompt) > len(rows[1].prompt)
    written = objective.begin(0, rows)
    assert [row.id for row in written] == [row.id for row in rows]
    assert objective.model.training, "and is trained on with what was dropped before"
    for row in written:
        ids = torch.tensor([[*row.prompt, *row.completion]])
        with torch.no_grad():
            best = objective.model.eval()(ids).logits[0, len(row.prompt) - 1 : -1].argmax(-1)
        assert best.tolist() == row.completion
        assert row.ended == (row.completion[-1] in teacher.tokens.eos)


def test_nothing_after_the_end_and_no_prompt_is_learned(corpus_):
    """Completions end with the teacher's end tokens, even if the student's config has other end tokens."""
    objective, data, teacher, _ = ready(corpus_, {**WRITES, "max_new_tokens": 200})
    objective.model.generation_config.eos_token_id = 0
    batch = objective.begin(0, data[:8])
    assert any(row.ended for row in batch), "the test needs a text that ends"
    for row in batch:
        assert not teacher.tokens.eos & set(row.completion[:-1])
        assert row.ended == (row.completion[-1] in teacher.tokens.eos)
        assert row.ended or len(row.completion) == 200
        assert not row.kept
    _, parts = objective(batch, batch)
    assert parts["length"] == pytest.approx(sum(len(row.completion) for row in batch) / 8)
    assert parts["ended"] == pytest.approx(sum(row.ended for row in batch) / 8)
    assert parts["cross_entropy"] == 0, "no cross-entropy on what the student wrote"
    assert objective.tokens(batch) == sum(len(row.completion) for row in batch)


def test_empty_completions_teach_their_end(corpus_):
    """A student that ends immediately writes one token a row. The loss is finite, and the metrics show the lengths."""
    objective, data, teacher, _ = ready(corpus_, WRITES, loss="reverse_kl")
    prompt = data[0].prompt
    with torch.no_grad():
        ids = torch.tensor([prompt])
        (end,) = teacher.tokens.eos
        first = int(objective.model.eval()(ids).logits[0, -1].argmax())
        objective.writer.tokens = replace(teacher.tokens, eos=frozenset({first}))
        objective.online = objective.online.model_copy(update={"temperature": 0.0})
    batch = objective.begin(0, [data[0]] * 3)
    assert [len(row.completion) for row in batch] == [1, 1, 1]
    loss, parts = objective(batch, batch)
    assert torch.isfinite(loss)
    assert parts["empty"] == parts["ended"] == 1
    assert parts["length"] == 1
    assert end not in batch[0].prompt[-1:]


def test_lambda_is_how_often_the_student_writes(corpus_):
    objective, data, *_ = ready(corpus_, {**WRITES, "lmbda": 0.3, "max_new_tokens": 1})
    wrote = [bool(objective.begin(step, data[:1])[0].written) for step in range(400)]
    assert 0.22 < sum(wrote) / 400 < 0.38
    rising = objective.online.model_copy(update={"lmbda": (0.0, 1.0)})
    assert [share(rising, step, 5) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    falling = objective.online.model_copy(update={"lmbda": (0.75, 0.25)})
    assert [share(falling, step, 5) for step in range(5)] == [0.75, 0.625, 0.5, 0.375, 0.25]
    assert share(rising, 0, 1) == 0
    assert share(objective.online, 3, 5) == 0.3


def test_texts_are_reused_for_so_many_steps(corpus_):
    objective, data, *_ = ready(corpus_, {**WRITES, "reuse": 3})
    found = [objective.begin(step, data[step : step + 2]) for step in range(6)]
    assert found[0] == found[1] == found[2] != found[3] == found[4] == found[5]
    assert [row.id for row in found[0]] == [row.id for row in data[:2]]
    cut, *_ = ready(corpus_, {**WRITES, "reuse": 3})
    cut.restore(json.loads(json.dumps(objective.state())))
    assert cut.begin(4, data[4:6]) == found[4]


# Mutual learning


def test_mutual_learning_moves_both_and_no_gradient_crosses(corpus_):
    online = {"mode": "mutual", "loss_temperature": 2.0, "teacher_kd_weight": 0.3}
    objective, data, teacher, section = ready(corpus_, online, double=True, loss="reverse_kl")
    objective.teacher.double()
    with torch.no_grad():  # this loop makes the teacher different from the student
        for weight in objective.teacher.parameters():
            weight.mul_(1.2)
    student, peer = copy.deepcopy(objective.model), copy.deepcopy(objective.teacher)
    batch = data[:5]
    mine = reference(student, objective.teacher, batch, section)
    swapped = [type(r)(**{**vars(r), "prompt": r.teacher_prompt, "teacher_prompt": r.prompt}) for r in batch]
    its = reference(peer, objective.model, swapped, section.model_copy(update={"kd_weight": 0.3}))
    loss, parts = objective(batch, batch)
    assert parts["loss"] == pytest.approx(float((mine + its).detach()), rel=3e-7)
    assert parts["student_loss"] == pytest.approx(float(mine.detach()), rel=3e-7)
    assert parts["teacher_loss"] == pytest.approx(float(its.detach()), rel=3e-7)
    loss.backward()
    same({n: p.grad for n, p in objective.model.named_parameters()}, gradients(mine, student), 3e-7)
    same({n: p.grad for n, p in objective.teacher.named_parameters()}, gradients(its, peer), 3e-7)
    assert all(p.grad is None for p in teacher.weights.model.parameters())


def test_the_trained_teacher_is_saved_and_the_given_one_left_alone(corpus_, tmp_path):
    recipe, run = corpus_
    both = changed(recipe, online={"mode": "mutual"}, baseline=False)
    teacher = LanguageModel.open(recipe.teacher)
    before = {name: value.clone() for name, value in teacher.weights.model.state_dict().items()}
    folder = train(both, run, tmp_path / "both", teacher=teacher).folder
    assert all(torch.equal(value, before[name]) for name, value in teacher.weights.model.state_dict().items())
    saved = load_file(folder / "teacher" / "model.safetensors")
    assert all(not torch.equal(saved[name], before[name]) for name in saved if "proj" in name)
    again = LanguageModel.open(recipe.teacher.model_copy(update={"model": str(folder / "teacher")}))
    assert len(again.logprobs([[1, 2]], [[3]])) == 1
    assert "learned from the student at the same time" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_the_trained_teacher_is_evaluated(corpus_, tmp_path):
    recipe, run = corpus_
    both = changed(recipe, online={"mode": "mutual"}, baseline=False)
    folder = train(both, run, tmp_path / "both").folder
    assert evaluate(both, run, folder).table["teacher, trained too"]["kl"].mean > 0


# Resume


@pytest.mark.parametrize(
    "online",
    [
        {**WRITES, "lmbda": (1.0, 0.4), "reuse": 3, "max_new_tokens": 6},
        {"mode": "mutual"},
        {**WRITES, "reuse": 2, "max_new_tokens": 6},
    ],
    ids=["on_policy", "mutual", "on_policy, lora"],
)
def test_resume_is_exact_wherever_it_was_cut(tmp_path, online, request):
    teacher = small_teacher(tmp_path / "teacher", attention_dropout=0.2)
    more = {"baseline": False, "save_steps": 1, "max_steps": 6}
    if "lora" in request.node.name:
        more["student"] = {"kind": "decoder", "layers": 1, "lora": {"r": 2, "lora_dropout": 0.1}}
    recipe = synthgen.load_recipe(small_task(tmp_path / "task", teacher, logits=None, train=_train(online, more)))
    run = tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    model = LanguageModel.open(recipe.teacher)
    whole = resumes_everywhere(
        lambda folder, ui: train(recipe, run, folder, teacher=model, ui=ui), tmp_path / "students", (1, 2, 4), [2]
    )
    metrics = metrics_of(whole)
    assert len(metrics) == 6
    if online["mode"] == "on_policy":
        assert sum("length" in row for row in metrics) >= 3, "the test needs steps that the student wrote"
    assert (whole / "teacher").exists() == (online["mode"] == "mutual")
    assert (whole / "adapter").exists() == ("lora" in request.node.name)


def _train(online: dict, more: dict) -> dict:
    return {
        "student": {"kind": "decoder", "layers": 1},
        "batch_size": 4,
        "num_train_epochs": 4,
        "learning_rate": 1e-3,
        "online": online,
        **more,
    }


@pytest.mark.parametrize("online", [{"mode": "teacher"}, WRITES, {"mode": "mutual"}], ids=["teacher", "writes", "both"])
def test_half_floats_and_small_portions_teach_nearly_the_same(corpus_, tmp_path, online):
    """Training uses bfloat16 autocast. The frozen teacher keeps the precision in which it was loaded."""
    recipe, run = corpus_
    found = []
    for name, more in (("whole", {}), ("half", {"dtype": "bfloat16", "micro_batch_size": 3})):
        if online["mode"] == "on_policy":  # in bfloat16, the student would write other texts than in float32
            more = {key: value for key, value in more.items() if key != "dtype"}
        settings = {"online": online, "baseline": False, "max_steps": 3, **more}
        found.append(metrics_of(student_of(recipe, run, tmp_path / name, **settings)))
    for a, b in zip(*found, strict=True):
        assert a["tokens"] == b["tokens"]
        assert a["loss"] == pytest.approx(b["loss"], rel=0.02)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=0.1)


def test_the_student_writes_in_half_floats_too(corpus_):
    objective, data, *_ = ready(corpus_, WRITES, dtype="bfloat16")
    batch = objective.begin(0, data[:4])
    assert all(1 <= len(row.completion) <= 12 for row in batch)
    assert all(p.dtype == torch.float32 for p in objective.model.parameters())


# Errors


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"online": {"mode": "teacher", "lmbda": 0.2}}, "'lmbda' is only used in mode on_policy"),
        (
            {"online": {"mode": "on_policy", "teacher_kd_weight": 0.2}},
            "'teacher_kd_weight' is only used in mode mutual",
        ),
        ({"online": {"mode": "on_policy", "lmbda": 1.5}}, "less than or equal to 1"),
        ({"online": {"mode": "teacher"}, "kd_weight": 0}, "the teacher is never used"),
        ({"online": None}, "or train.online"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, section, says):
    teacher = small_teacher(tmp_path / "teacher")
    path = small_task(tmp_path / "task", teacher, logits=None, train={"student": {"kind": "decoder"}, **section})
    with pytest.raises(RecipeError) as caught:
        synthgen.load_recipe(path)
    assert says in str(caught.value.message)
    assert "\n" not in caught.value.message


def test_a_dumped_recipe_is_read_again(tmp_path):
    from synthgen.recipe import dump_recipe

    teacher = small_teacher(tmp_path / "teacher")
    train_ = _train({"mode": "teacher"}, {"loss": "mse"})
    recipe = synthgen.load_recipe(small_task(tmp_path / "task", teacher, logits=None, train=train_))
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert synthgen.load_recipe(tmp_path / "again.yaml") == recipe


def test_another_teacher_than_the_corpus_is_refused(corpus_, tmp_path):
    recipe, run = corpus_
    other = small_teacher(tmp_path / "other", seed=1)
    online = changed(recipe, online={"mode": "teacher"})
    with pytest.raises(CorpusError, match="wrote none of its rows") as caught:
        train(
            online.model_copy(update={"teacher": recipe.teacher.model_copy(update={"model": str(other)})}),
            run,
            tmp_path / "student",
        )
    assert caught.value.hint


def test_prompts_without_room_to_write_are_counted(corpus_):
    recipe, run = corpus_
    teacher = LanguageModel.open(recipe.teacher)
    data, _ = texts(run, teacher, section_of(recipe, {"mode": "teacher"}))
    longest = max(len(row.prompt) for row in data)
    new = teacher.context - longest + 1
    _, left_out = texts(run, teacher, section_of(recipe, {**WRITES, "max_new_tokens": new}))
    assert left_out["no_room_to_write"] == sum(len(row.prompt) == longest for row in data) > 0
    with pytest.raises(UserError, match="with no room for max_new_tokens"):
        texts(run, teacher, section_of(recipe, {**WRITES, "max_new_tokens": 10_000}))


def test_the_baseline_is_that_of_offline_training(corpus_, tmp_path):
    """Batches and tokens are the same, and cross-entropy does not use the teacher."""
    recipe, run = corpus_
    found = []
    for name, online in (("offline", None), ("online", {"mode": "teacher"})):
        folder = student_of(recipe, run, tmp_path / name, online=online)
        found.append(load_file(folder / "baseline" / "model.safetensors"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_rows_are_those_of_offline_training(corpus_):
    recipe, run = corpus_
    teacher = LanguageModel.open(recipe.teacher)
    stored = load(run / "curated", teacher.tokens.render, Choice(512))
    live, _ = texts(run, teacher, section_of(recipe, {"mode": "teacher"}))
    rows = [[(r.id, r.prompt, r.completion, r.kept) for r in data] for data in (stored.examples, live)]
    assert rows[0] == rows[1]
