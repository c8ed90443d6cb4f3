"""The training loop: students from a checkpoint, with random weights and with adapters, early stopping."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from support.corpora import list_again
from support.measuring import measured_here
from support.small import small_task, small_teacher
from support.training import HELD_OUT, Cut, changed, metrics_of, resumes_everywhere, student_of
from support.unaudited import train

from distill import evaluate
from distill.finished import is_trained, made_from
from distill.loop import Checkpoints, Objective, _Trainer, _write, accelerator_of, fit, opened
from synthgen import corpus
from synthgen.errors import CorpusError, RecipeError, RunChanged, UserError
from synthgen.lm.load import pick_device
from synthgen.recipe import TrainSection
from synthgen.results.evaluation import Evaluation
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import Progress

CPU = torch.device("cpu")
CONFIG = {"kind": "decoder", "config": {"num_hidden_layers": 3, "hidden_size": 8, "intermediate_size": 12}}


def test_a_student_of_random_weights(small_run, tmp_path):
    recipe, run = small_run(seeds=24, split=HELD_OUT, evaluate={"max_prompts": 2, "max_new_tokens": 8})
    student = student_of(recipe, run, tmp_path / "student", student=CONFIG)
    model = LocalModel.open(recipe.teacher.model_copy(update={"model": str(student)})).model
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (3, 8)
    card = (student / "README.md").read_text()
    assert "random weights, the teacher's config but for num_hidden_layers 3, hidden_size 8" in card
    again = student_of(recipe, run, tmp_path / "again", student=CONFIG)
    assert (student / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    recipe = changed(recipe, student=CONFIG)
    with measured_here():
        found = evaluate(recipe, run, student)
    assert set(found.table) >= {"untrained", "distilled"}
    measured = (student / "README.md").read_text()
    assert "## Held-out results" in measured
    assert "## Held-out results" not in card
    (student / "README.md").write_text("edited")
    evaluate(recipe, run, student)
    assert (student / "README.md").read_text() == "edited", "nothing was done"


def test_measuring_on_another_run_leaves_the_card(small_run, tmp_path, monkeypatch):
    """After an evaluation on another run, the card still names the rows and licenses of the corpus that the student
    learned from. The evaluation itself is replaced by an empty one.
    """
    nothing = Evaluation("decoder", 0, "completions", "", {}, {})
    monkeypatch.setattr("distill.evaluation.texts.evaluate_decoder", lambda subject: nothing)
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    other, elsewhere = small_run(seeds=16)
    student = student_of(recipe, run, tmp_path / "student", baseline=False)
    card = (student / "README.md").read_text()
    evaluate(other, elsewhere, student)
    assert (student / "evaluation.json").exists()
    assert (student / "README.md").read_text() == card


def test_a_student_from_a_checkpoint_goes_on_from_there(small_run, tmp_path):
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    first = small_teacher(tmp_path / "first", seed=7)
    kind = {"kind": "decoder", "model": str(first)}
    student = student_of(recipe, run, tmp_path / "student", student=kind, learning_rate=1e-9, baseline=False)
    before, after = load_file(first / "model.safetensors"), load_file(student / "model.safetensors")
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in after)
    assert not (student / "baseline").exists()


def test_only_the_adapter_learns_and_is_merged(small_run, tmp_path):
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    kind = {"kind": "decoder", "layers": 1, "lora": {"r": 2, "target_modules": ["q_proj", "v_proj"]}}
    student = student_of(recipe, run, tmp_path / "student", student=kind, learning_rate=0.05)
    teacher = LocalModel.open(recipe.teacher).model.state_dict()
    found = load_file(student / "model.safetensors")
    moved = {name for name, value in found.items() if not torch.equal(value, teacher[name].float())}
    assert moved == {f"model.layers.0.self_attn.{name}.weight" for name in ("q_proj", "v_proj")}
    adapter = load_file(student / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 4
    a, b = (next(v for k, v in adapter.items() if "q_proj" in k and f"lora_{letter}" in k) for letter in "AB")
    origin = teacher["model.layers.0.self_attn.q_proj.weight"]
    expected = origin + 32 / 2 * (b @ a)
    assert torch.allclose(found["model.layers.0.self_attn.q_proj.weight"], expected, atol=1e-5)
    assert "low-rank adapters (r = 2), merged" in (student / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"student": {"kind": "decoder", "config": {"hidden": 8}}}, "llama configs have no key 'hidden'"),
        ({"student": {"kind": "decoder", "config": {"hidden_size": 7}}}, "this model cannot be made"),
        ({"student": {"kind": "decoder", "layers": 1, "lora": {"target_modules": ["w_proj"]}}}, "train.student.lora"),
        ({"eval_steps": 2}, "has no validation rows"),
        ({"report_to": ["wandb"]}, "names wandb, which is not installed"),
    ],
)
def test_mistakes(small_run, tmp_path, changes, says):
    recipe, run = small_run(seeds=8)
    with pytest.raises(UserError, match=says) as caught:
        student_of(recipe, run, tmp_path / "student", **changes)
    assert caught.value.hint
    assert not (tmp_path / "student" / "training.json").exists()


def test_a_checkpoint_of_another_vocabulary(small_run, tmp_path):
    recipe, run = small_run(seeds=8)
    other = small_teacher(tmp_path / "other")
    path = other / "tokenizer.json"
    values = json.loads(path.read_text())
    vocabulary = values["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(values))
    with pytest.raises(RecipeError, match="gives 2 of its 258 tokens other ids"):
        student_of(recipe, run, tmp_path / "student", student={"kind": "decoder", "model": str(other)})


def test_two_origins_are_refused():
    with pytest.raises(ValueError, match="at most one of 'layers', 'model' and 'config'"):
        TrainSection.model_validate({"student": {"kind": "decoder", "layers": 2, "model": "x"}})
    with pytest.raises(ValueError, match="set 'eval_steps' too"):
        TrainSection.model_validate({"early_stopping_patience": 2})


# Early stopping


def test_stops_when_nothing_gets_better_and_keeps_the_best(small_run, tmp_path):
    """The learning rate is far too high, so the validation loss rises. The weights with the lowest loss are kept."""
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    settings = {
        "eval_steps": 1,
        "early_stopping_patience": 3,
        "learning_rate": 0.03,
        "max_steps": 40,
        "num_train_epochs": 40,
    }
    student = student_of(recipe, run, tmp_path / "student", baseline=False, **settings)
    metrics = metrics_of(student)
    losses = [row["validation"] for row in metrics]
    best = losses.index(min(losses))
    assert len(losses) == best + 4 < 40
    shorter = settings | {"early_stopping_patience": None, "eval_steps": 1}
    weights = load_file(student / "model.safetensors")
    # Both runs have the learning rate schedule of 40 steps. So the kept weights equal those of a run that is cut after
    # step best + 1.
    with pytest.raises(KeyboardInterrupt):
        train(
            changed(recipe, baseline=False, save_steps=1, **shorter),
            run,
            tmp_path / "cut",
            ui=Cut(best + 1),
        )
    (checkpoint,) = (tmp_path / "cut" / "checkpoints").glob("distilled-0*.safetensors")
    assert int(checkpoint.stem.rpartition("-")[2]) == best + 1
    found = load_file(checkpoint)
    assert all(torch.equal(weights[name], found[f"weight.model.{name}"]) for name in weights)


def test_checkpoints_are_pruned_and_the_log_is_live(small_run, tmp_path):
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    recipe = changed(recipe, save_steps=1, save_total_limit=2, max_steps=5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, tmp_path / "cut", ui=Cut(4))
    folder = tmp_path / "cut" / "checkpoints"
    assert sorted(p.name for p in folder.glob("*.safetensors")) == [f"distilled-000000{n}.safetensors" for n in (3, 4)]
    assert [json.loads(line)["step"] for line in (folder / "distilled.jsonl").read_text().splitlines()] == [0, 1, 2, 3]


LORA = {"kind": "decoder", "layers": 1, "lora": {"r": 2, "lora_dropout": 0.3}}


@pytest.mark.parametrize(
    "changes",
    [{"student": LORA}, {"eval_steps": 1, "early_stopping_patience": 2, "learning_rate": 0.03}],
    ids=["lora", "stop"],
)
def test_resume_is_exact(small_run, tmp_path, changes):
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    recipe = changed(recipe, **changes, save_steps=2, max_steps=7)
    resumes_everywhere(lambda folder, ui: train(recipe, run, folder, ui=ui), tmp_path, range(1, 10, 2))


def test_activation_checkpointing_changes_nothing(small_run, tmp_path):
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    a, b = (
        load_file(student_of(recipe, run, tmp_path / str(on), gradient_checkpointing=on) / "model.safetensors")
        for on in (False, True)
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_tensorboard_is_told_of_every_step(small_run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe, run = small_run(seeds=24, split=HELD_OUT)
    student = student_of(recipe, run, tmp_path / "student", report_to=["tensorboard"], baseline=False)
    events = EventAccumulator(str(student / "trackers" / "distilled"))
    events.Reload()
    metrics = metrics_of(student)
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([row["loss"] for row in metrics], rel=1e-5)


def test_trackers_do_not_decide_what_a_student_is(small_run, tmp_path):
    """A finished student is not trained again when only the tracker and the number of kept checkpoints change."""
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    student_of(recipe, run, tmp_path / "student")
    student_of(recipe, run, tmp_path / "student", report_to=["tensorboard"], save_total_limit=3)


def test_a_student_of_an_older_version_is_still_there(small_run, tmp_path):
    """The inputs.json of an older version lacks the keys that were added later. If these keys are off, the student
    still counts as trained.
    """
    recipe, run = small_run(seeds=24, split=HELD_OUT)
    out = student_of(recipe, run, tmp_path / "student")
    old = json.loads((out / "inputs.json").read_text())
    for key in ("hidden", "early_stopping_patience", "gradient_checkpointing"):
        del old["train"][key]
    (out / "inputs.json").write_text(json.dumps(old))
    before = (out / "model.safetensors").stat().st_mtime_ns
    assert is_trained(recipe.train, run / "curated", out)
    student_of(recipe, run, tmp_path / "student")
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    assert not is_trained(changed(recipe, hidden={}).train, run / "curated", out)
    with pytest.raises(RunChanged, match=r"train.hidden: None"):
        student_of(recipe, run, tmp_path / "student", hidden={})


# Devices


def test_a_process_may_train_on_another_device_than_before(tmp_path, monkeypatch):
    """Accelerate keeps one device for a process. The test uses 'meta' in place of a GPU."""
    for name in ("cpu", "meta", "cpu"):
        monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", name)
        assert accelerator_of(TrainSection(), torch.device(name), tmp_path).device.type == name


@pytest.mark.parametrize(("rank", "expected"), [(None, "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1")])
def test_each_process_has_a_gpu_of_its_own(monkeypatch, rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert [str(pick_device(name)) for name in ("auto", "cuda", "cpu")] == [expected, expected, "cpu"]


_STARVED = """
import resource, sys
from functools import partial
import distill, synthgen
from synthgen.errors import UserError
from synthgen.lm.model import LanguageModel

train = partial(distill.train, override_audit=True)
recipe = synthgen.load_recipe(sys.argv[1])
teacher = LanguageModel.open(recipe.teacher)
train(recipe, sys.argv[2], sys.argv[3] + "-warm", teacher=teacher)  # what is loaded on the way is loaded
big = recipe.train.model_copy(update={"batch_size": 64, "seed": 1})
recipe = recipe.model_copy(update={"train": big})
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for room in (120 << 20, 8 << 30):
    resource.setrlimit(resource.RLIMIT_AS, (held + room, resource.RLIM_INFINITY))
    try:
        train(recipe, sys.argv[2], sys.argv[3], teacher=teacher)
        print("trained")
    except UserError as error:
        print(error, "->", error.hint)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="address space is counted and limited on Linux")
def test_out_of_memory_is_one_line_that_says_what_to_do(small_run, tmp_path):
    recipe, run = small_run(seeds=64)
    config = {"hidden_size": 256, "intermediate_size": 8192, "num_hidden_layers": 2}
    section = recipe.train.model_dump(exclude_none=True) | {"student": {"kind": "decoder", "config": config}}
    section |= {"baseline": False, "max_steps": 2, "batch_size": 2}
    task = small_task(tmp_path / "task", Path(recipe.teacher.model), seeds=64, train=section)
    script = tmp_path / "starved.py"
    script.write_text(_STARVED)
    command = [sys.executable, str(script), str(task), str(run), str(tmp_path / "student")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    starved, *with_room = done.stdout.splitlines()
    assert starved.startswith("out of memory in step 0, with"), done.stdout + done.stderr[-1500:]
    assert "lower train.micro_batch_size" in starved
    assert with_room == ["trained"], "and the same command goes on where there is room"


class _Branches(Objective):
    """Three layers. The second layer is used from step 3 on, and the third layer is never used."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, rows, step):
        x = torch.tensor([[float(row + n) for n in range(4)] for row in rows]).cos()
        y = self.model[0](x)
        if min(rows) >= 6:
            y = self.model[1](y)
        loss = y.square().sum() / len(step)
        return loss, {"loss": float(loss.detach())}

    def tokens(self, rows):
        return len(rows)


def test_weights_whose_gradient_comes_late_or_never_resume_too(tmp_path):
    """AdamW corrects the moments of each weight by the weight's own step count, so a checkpoint must hold all step
    counts.
    """
    section = TrainSection(save_steps=1, save_total_limit=9, learning_rate=0.01)

    def fitted(objective, folder, steps=8, stop=None):
        def batch_of(step):
            if step == stop:
                raise KeyboardInterrupt
            return [2 * step, 2 * step + 1]

        accelerator = accelerator_of(section, CPU, folder)
        return fit(
            objective,
            batch_of,
            section,
            steps,
            Checkpoints(folder, "x"),
            Progress("train", steps, "steps"),
            accelerator=accelerator,
        )

    whole = _Branches()
    before = [p.clone() for p in whole.model.parameters()]
    fitted(whole, tmp_path / "whole")
    moved = [not torch.equal(a, b) for a, b in zip(before, whole.model.parameters(), strict=True)]
    assert moved == [True] * 4 + [False] * 2
    for stop in (2, 4, 6):
        with pytest.raises(KeyboardInterrupt):
            fitted(_Branches(), tmp_path / str(stop), stop=stop)
        again = _Branches(seed=1)
        fitted(again, tmp_path / str(stop))
        for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(a, b), stop


def test_a_checkpoint_with_one_step_for_all_is_taken_up(tmp_path):
    """An older version wrote one step count for all weights. The moments of its checkpoint are used."""
    weights = {"a": torch.nn.Parameter(torch.ones(2))}
    optimizer = torch.optim.AdamW(weights.values())
    section = TrainSection()
    trainer = _Trainer(Objective(), optimizer, weights, section, CPU)
    tensors = {"weight.a": torch.zeros(2), "exp_avg.a": torch.full((2,), 3.0), "exp_avg_sq.a": torch.full((2,), 4.0)}
    where = Checkpoints(tmp_path, "x")
    _write(tensors, where.at(7), {"step": "7", "metrics": "[]", "state": "null"})
    assert trainer.restored(where) == (7, [])
    state = optimizer.state[weights["a"]]
    assert (float(state["step"]), state["exp_avg"].tolist(), state["exp_avg_sq"].tolist()) == (
        7.0,
        [3.0] * 2,
        [4.0] * 2,
    )


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _one_bit(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def _other_metrics(data: bytes) -> bytes:
    return data.replace(b'"metrics":"[]"', b'"metrics":"{}"')


DAMAGE = {
    "half": _half,
    "one bit": _one_bit,
    "metadata": _other_metrics,
    "nothing": lambda data: b"",
    "no hash": lambda data: data.replace(b'"sha256"', b'"sha255"'),
    "more": lambda data: data + b"x",
}


@pytest.mark.parametrize("name", list(DAMAGE))
@pytest.mark.parametrize("best", [False, True])
def test_a_damaged_checkpoint_is_named_and_never_trains_another_student(tmp_path, name, best):
    """Weights, moments and metadata have one hash, which is compared when a training resumes."""
    weights = {"a": torch.nn.Parameter(torch.ones(64))}
    section = TrainSection()
    optimizer = torch.optim.AdamW(weights.values())
    trainer = _Trainer(Objective(), optimizer, weights, section, CPU)
    where = Checkpoints(tmp_path, "x", keep=2)
    _write({"a": torch.zeros(64)}, where.best, {"metrics": "[]"})
    trainer.save(3, [], where)
    trainer.save(7, [], where)
    path = where.best if best else where.at(7)
    path.write_bytes(DAMAGE[name](path.read_bytes()))
    with pytest.raises(CorpusError, match=f"{path.name} is damaged") as caught:
        trainer.take_best(where) if best else trainer.restored(where)
    assert "\n" not in caught.value.message
    assert "delete this file" in caught.value.hint
    assert torch.equal(weights["a"].data, torch.ones(64)), "nothing of the file was taken"
    path.unlink()
    assert trainer.restored(where)[0] == (7 if best else 3)


def test_a_checkpoint_is_not_written_through_a_link(tmp_path):
    (tmp_path / "outside").write_text("mine")
    where = Checkpoints(tmp_path / "checkpoints", "x")
    where.folder.mkdir()
    where.folder.joinpath(".tmp-x-0000001.safetensors").symlink_to(tmp_path / "outside")
    _write({"a": torch.zeros(2)}, where.at(1), {"step": "1"})
    assert (tmp_path / "outside").read_text() == "mine"
    assert not where.at(1).is_symlink()
    with opened(where.at(1)) as file:
        assert file.get_tensor("a").tolist() == [0.0, 0.0]


def test_a_student_belongs_to_the_distributions_that_it_learned_from(small_run, tmp_path):
    """The same rows with other distributions make another student, so a finished student is not reused."""
    recipe, run = small_run()
    copy, out = Path(shutil.copytree(run, tmp_path / "run")), tmp_path / "student"
    manifest = corpus.manifest(copy / "curated")
    inputs = made_from(recipe.train, copy / "curated", manifest)
    (shard, *_) = sorted((copy / "generated" / "logits").rglob("train-*.parquet"))
    table = pq.read_table(shard)
    pq.write_table(table.take(list(range(len(table)))[::-1]), shard)
    with pytest.raises(CorpusError, match=f"{shard.name} is damaged"):
        train(recipe, copy, out)
    list_again(copy / "generated")
    changed_inputs = made_from(recipe.train, copy / "curated", manifest)
    assert {key for key in inputs if inputs[key] != changed_inputs[key]} == {"logits_sha256"}
    alone = recipe.train.model_copy(update={"kd_weight": 0.0})
    assert "logits_sha256" not in made_from(alone, copy / "curated", manifest)
