"""Several processes train one student: the same student as one process trains, resuming, and the end of one process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file
from support.launching import accelerate_launch, errors_in, launch, torchrun
from support.small import small_encoder, sorting_task
from support.training import HELD_OUT, changed, metrics_of, training_of
from support.unaudited import train

import distill
import synthgen
from distill import processes
from distill.streaming.batches import Order
from distill.targets.live import key
from synthgen.errors import UserError
from synthgen.recipe import dump_recipe, load_recipe
from synthgen.tables.students import KINDS

CPU = torch.device("cpu")
SHORT = {"batch_size": 4, "max_steps": 6, "save_steps": 2}
T5 = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
ON_POLICY = {"mode": "on_policy", "lmbda": 1.0, "max_new_tokens": 6, "reuse": 2}
WRITERS = {
    "distributions": {},
    "portions and stored hidden states": {"micro_batch_size": 1, "hidden": {"stored": True}},
    "tokens": {"kd_weight": 0},
    "validation": {"eval_steps": 2, "early_stopping_patience": 9},
    "lora": {"student": {"kind": "decoder", "layers": 1, "lora": {"r": 2}}},
    "relations": {"relations": {}},
    "seq2seq": {"student": {"kind": "seq2seq", "config": T5}},
    "live teacher": {"online": {"mode": "teacher"}},
    "on policy": {"online": ON_POLICY},
    "mutual": {"online": {"mode": "mutual"}},
}
BERT = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
READERS = {
    "encoder": {"config": {**BERT, "intermediate_size": 32, **NO_DROPOUT}},
    "sentence": {"config": {"num_hidden_layers": 1, **NO_DROPOUT}},
}


def written(path: Path, recipe, **changes) -> Path:
    """Writes the recipe with changed keys of `train`, and returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_recipe(changed(recipe, **{**SHORT, **changes})))
    return path


def same_students(one: Path, two: Path) -> None:
    """Asserts that two students have the same weights and curves, up to the order of sums.

    BERT's key biases are left out: attention does not depend on them, so their gradients are rounding errors, which
    AdamW scales up.
    """
    names = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert names == sorted(path.relative_to(two) for path in two.rglob("*.safetensors"))
    for name in names:
        a, b = load_file(one / name), load_file(two / name)
        assert a.keys() == b.keys()
        far = {key: float((a[key] - b[key]).abs().max()) for key in a if not key.endswith(".key.bias")}
        assert not {key: value for key, value in far.items() if value > 1e-5}, name
    for path in sorted(one.rglob("metrics.jsonl")):
        mine, theirs = metrics_of(path.parent), metrics_of(two / path.parent.relative_to(one))
        assert [row.keys() for row in mine] == [row.keys() for row in theirs]
        for a, b in zip(mine, theirs, strict=True):
            assert b == pytest.approx(a, abs=1e-4, rel=1e-4)


# The same student


@pytest.fixture(scope="module")
def small(small_run, tmp_path_factory):
    """(recipe, run) of a small teacher. Each batch has 3 or 4 rows."""
    recipe, run = small_run(seeds=20, split=HELD_OUT)
    return recipe, shutil.copytree(run, tmp_path_factory.mktemp("processes") / "run")


def test_a_sum_of_gradients_keeps_the_strides_of_its_weight(monkeypatch):
    """The fused AdamW reads weight and gradient in the order of memory. Here both processes have the same gradient."""

    def double(tensor: torch.Tensor, *_: object, **__: object) -> Mock:
        tensor.mul_(2)
        return Mock()

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", double)
    weight = torch.nn.Parameter(torch.zeros(3, 2).t())
    weight.grad = torch.tensor([[1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]).t()
    signs = weight.grad.sign()
    processes.add_gradients([weight])
    assert torch.equal(weight.grad, 2 * signs)
    torch.optim.AdamW([weight], lr=1.0, weight_decay=0, fused=True).step()
    assert torch.equal(weight.detach().sign(), -signs)


def test_two_processes_train_the_same_student(small, tmp_path):
    recipe, run = small
    tasks = {name: written(tmp_path / f"{n}.yaml", recipe, **keys) for n, (name, keys) in enumerate(WRITERS.items())}
    wanted = ["portions and stored hidden states", "on policy"]
    for name in wanted:
        train(load_recipe(tasks[name]), run, tmp_path / "one" / name)
    shutil.rmtree(run / "hidden")  # now the launched processes must compute the hidden states again
    done = launch(2, [{"recipe": tasks[name], "run": run, "out": tmp_path / "two" / name} for name in wanted])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes, each of which trains on a part of every batch" in done.stderr
    for name in wanted:
        same_students(tmp_path / "one" / name, tmp_path / "two" / name)


@pytest.fixture(scope="module")
def all_kinds(small, tmp_path_factory):
    """A folder with every kind of student, trained by one process, by two, and by three."""
    folder = tmp_path_factory.mktemp("kinds")
    recipe, run = small
    bases = [(recipe, run, WRITERS)]
    for kind, more in (("encoder", {}), ("sentence", {"strategy": "embed", "generate": {"shard_size": 16}})):
        teacher = small_encoder(folder / kind / "teacher", headless=kind == "sentence")
        task = sorting_task(folder / kind / "task", teacher, train={"student": {"kind": kind, **READERS[kind]}}, **more)
        made = synthgen.load_recipe(task)
        synthgen.generate(made, folder / kind / "run")
        synthgen.curate(made, folder / kind / "run")
        bases.append((made, folder / kind / "run", {kind: {}}))
    trainings = []
    for base, source, kinds in bases:
        for name, keys in kinds.items():
            task = written(folder / f"{name}.yaml", base, **keys)
            train(load_recipe(task), source, folder / "1" / name)
            trainings.append({"recipe": task, "run": source, "out": name})
    for count in (2, 3):
        done = launch(count, [{**one, "out": folder / str(count) / one["out"]} for one in trainings])
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", [*WRITERS, *READERS])
def test_every_kind_of_student_is_the_same(all_kinds, name, count):
    """The students have no dropout, because each process draws its own. A batch of 3 rows cannot be divided equally
    among 2 processes, nor a batch of 4 rows among 3 processes.
    """
    same_students(all_kinds / "1" / name, all_kinds / str(count) / name)


@pytest.mark.slow
def test_students_write_each_text_once(small, tmp_path):
    recipe, run = small
    task = written(tmp_path / "recipe.yaml", recipe, online=ON_POLICY, baseline=False)
    done = launch(2, [{"recipe": task, "run": run, "out": tmp_path / "two", "written": tmp_path / "written"}])
    assert done.returncode == 0, done.stderr[-3000:]
    order = Order(training_of(tmp_path / "two").rows, SHORT["batch_size"], recipe.train.seed)
    wanted = [key(recipe.train.seed, step, number) for step in (0, 2, 4) for number in range(len(order.rows(step)))]
    assert sorted((tmp_path / "written").read_text().split()) == sorted(wanted), "every second step"


@pytest.mark.slow
def test_accelerate_launch_and_the_command_itself(small, tmp_path):
    recipe, run = small
    task = written(tmp_path / "recipe.yaml", recipe)
    train(load_recipe(task), run, tmp_path / "one")
    for start, out in ((torchrun, "torchrun"), (accelerate_launch, "accelerate")):
        command = ["train", str(run), "--recipe", str(task), "-o", str(tmp_path / out), "--override-audit"]
        done = start(2, "-m", "distill.cli", *command)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "2 processes, each of which trains on a part of every batch" in done.stderr
        assert done.stdout.count("outcome") <= 1
        same_students(tmp_path / "one", tmp_path / out)


# Resuming


@pytest.mark.slow
@pytest.mark.parametrize("name", ["distributions", "on policy"])
def test_any_number_of_processes_resumes(small, tmp_path, name):
    recipe, run = small
    task = written(tmp_path / "recipe.yaml", recipe, **WRITERS[name], save_steps=1)
    train(load_recipe(task), run, tmp_path / "whole")
    for count, steps in ((1, 2), (2, 2), (1, None)):
        cut = {"end": {"by": "cut", "steps": steps}} if steps else {}
        done = launch(count, [{"recipe": task, "run": run, "out": tmp_path / "parts", **cut}])
        assert done.returncode == 0, done.stderr[-3000:]
        assert (tmp_path / "parts" / "training.json").exists() == (steps is None)
    same_students(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rank"), [(2, 0), (2, 1), (3, 2)])
def test_a_killed_process_ends_all_and_the_same_command_resumes(small, tmp_path, count, rank):
    """The student has the same bytes as a student that the same number of processes trained without an interruption."""
    recipe, run = small
    task = written(tmp_path / "recipe.yaml", recipe, max_steps=8, save_steps=2)
    whole = launch(count, [{"recipe": task, "run": run, "out": tmp_path / "whole"}])
    assert whole.returncode == 0, whole.stderr[-3000:]
    training = {"recipe": task, "run": run, "out": tmp_path / "killed"}
    for steps in (3, 2):
        done = launch(count, [{**training, "end": {"by": "kill", "rank": rank, "steps": steps}}])
        assert done.returncode != 0
        assert len(errors_in(done)) == 1, done.stderr
    done = launch(count, [training])
    assert done.returncode == 0, done.stderr[-3000:]
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file() and path.name != ".lock"]
    for name in [path.relative_to(tmp_path / "whole") for path in files]:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "killed" / "checkpoints").exists()


# One message


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_ends_all_with_one_message(small, tmp_path, rank):
    recipe, run = small
    task = written(tmp_path / "recipe.yaml", recipe)
    end = {"by": "error", "rank": rank, "steps": 2}
    done = launch(2, [{"recipe": task, "run": run, "out": tmp_path / "student", "end": end}])
    assert done.returncode != 0
    assert errors_in(done) == ["Error: this process has an error of its own"], done.stderr


@pytest.mark.slow
def test_an_error_of_all_processes_is_one_message(small, tmp_path):
    recipe, run = small
    task = written(tmp_path / "recipe.yaml", recipe)
    command = ["train", str(run), "--recipe", str(task), "-o", str(tmp_path / "student")]
    done = torchrun(3, "-m", "distill.cli", *command, "--set", "train.student.kind=classifier")
    assert len(errors_in(done)) == 1, done.stderr
    done = torchrun(3, "-m", "distill.cli", *command)
    assert len(errors_in(done)) == 1, "only process 0 asks the gate of the audit\n" + done.stderr
    assert not (tmp_path / "student" / "training.json").exists()


@pytest.fixture
def started(monkeypatch):
    """Sets the variables of a launcher that started 3 processes on this machine."""
    for name, value in {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)


def test_processes_without_rows_are_refused(small, tmp_path, started):
    recipe, run = small
    with pytest.raises(UserError, match="3 processes were started, but a batch has only 2 rows") as caught:
        train(changed(recipe, batch_size=2), run, tmp_path / "student")
    assert "raise train.batch_size" in caught.value.hint


def test_each_process_needs_a_gpu_of_its_own(started, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="3 processes were started on this machine, which has 2 GPUs"):
        processes.check(16, torch.device("cuda"))
    processes.check(16, CPU)


def test_other_commands_run_in_one_process(small, tmp_path, started):
    recipe, run = small
    for name, call in (
        ("distill eval", lambda: distill.evaluate(recipe, run, tmp_path)),
        ("distill curve", lambda: distill.curve(recipe, run)),
        ("distill export", lambda: distill.export(tmp_path, "onnx")),
        ("synthgen run", lambda: synthgen.run(recipe, tmp_path / "run")),
    ):
        with pytest.raises(UserError, match=f"`{name}` runs in one process, but 3 were started"):
            call()


@pytest.mark.parametrize("place", ["recipe", "corpus"])
def test_processes_that_see_other_files_are_refused(small, tmp_path, monkeypatch, place):
    """Each process would train another student, and the first process would save its own."""
    recipe, run = small
    same = iter([True, False] if place == "corpus" else [False])  # the recipe is compared before the corpus
    monkeypatch.setattr(processes, "gathered", lambda value: [value, value if next(same) else "another"])
    with pytest.raises(UserError, match=f"process 1 has another {place}"):
        train(recipe, run, tmp_path / "student")


@pytest.mark.slow
def test_processes_with_other_recipes_are_refused(small, tmp_path):
    recipe, run = small
    recipes = [written(tmp_path / f"{rate}.yaml", recipe, learning_rate=rate) for rate in (0.001, 0.1)]
    script = tmp_path / "train.py"
    script.write_text(
        "import os\nfrom distill.cli import main\n"
        f"recipe = {list(map(str, recipes))}[int(os.environ['RANK'])]\n"
        f"main(['train', {str(run)!r}, '-o', {str(tmp_path / 'student')!r}, '--override-audit', '--recipe', recipe])\n"
    )
    done = torchrun(2, str(script))
    assert done.returncode != 0
    assert len(errors_in(done)) == 1, done.stderr
    assert "process 1 has another recipe or version of synthgen than process 0" in done.stderr
    assert not (tmp_path / "student" / "training.json").exists()


def test_other_ways_of_accelerate_are_refused(started, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="accelerate is set to FSDP"):
        processes.check(16, CPU)


def test_a_kind_for_one_process_is_refused_to_several(small, tmp_path, monkeypatch, started):
    recipe, run = small
    monkeypatch.setitem(KINDS, "decoder", replace(KINDS["decoder"], distributed=False))
    with pytest.raises(UserError, match="trained by only one process, but 3 were started"):
        train(recipe, run, tmp_path / "student")


def test_only_the_first_process_that_fails_raises_its_error(started, monkeypatch):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    with pytest.raises(UserError, match="another process of this training ended"), processes.one_error():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242")
    for error, code in ((UserError("later"), 2), (KeyboardInterrupt(), 1), (ValueError("a bug"), 1)):
        with pytest.raises(SystemExit) as caught, processes.one_error():
            raise error
        assert caught.value.code == code
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(ValueError, match="a bug"), processes.one_error():
        raise ValueError("a bug")
