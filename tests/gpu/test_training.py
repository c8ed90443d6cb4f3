"""Training on the device: losses as on the CPU, all kinds of students, and resuming with the same bytes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.rows import load
from support.training import Cut, metrics_of, student_of
from support.unaudited import train
from test_seq2seq import BART, T5

from distill import evaluate
from distill.data import Choice, Example
from distill.loop import accelerator_of
from distill.output_layer import Head
from distill.students.decoder import decoder
from distill.targets.across import Part, uld
from distill.targets.stored import FromStored
from synthgen.errors import UserError
from synthgen.recipe import TrainSection
from synthgen.teachers.transformers import LocalModel

# Rows fill bins of 256 tokens. So attention covers several blocks of keys, and a GPU may add gradients in any order.
GENERATE = {"num_generations": 2, "max_new_tokens": 24, "shard_size": 16}
LOGITS = {
    "sampled": {"kind": "sampled", "draws": 50},
    "topk": {"kind": "topk", "k": 16, "temperature": 2.0},
}
FAST = {"batch_size": 16, "num_train_epochs": 8, "max_steps": 6, "save_steps": 2, "learning_rate": 1e-3}
NEAR = {"float32": {"abs": 1e-4}, "bfloat16": {"rel": 3e-2, "abs": 1e-3}}


def ready(make_run, kind: str = "sampled", **keys):
    """(recipe, run), where the recipe's section `train` has `keys`. The key `device` is the device of the teacher."""
    device = {"device": keys.pop("device")} if "device" in keys else {}
    recipe, run = make_run(kind, **device, seeds=32, generate=GENERATE, logits=LOGITS[kind])
    values = recipe.train.model_dump(exclude_none=True) | FAST | keys
    return recipe.model_copy(update={"train": TrainSection.model_validate(values)}), run


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# Losses as on the CPU


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("kind", "loss"), [("sampled", "forward_kl"), ("topk", "reverse_kl"), ("topk", "adaptive_kl")])
def test_the_first_step_has_the_metrics_of_the_cpu(make_run, tmp_path, kind, loss, dtype):
    """Compares the metrics of the student and of its baseline on the device with those on the CPU. The saved student is
    float32, and its weights have changed.
    """
    by_device = []
    for device in (None, "cpu"):
        where = {} if device is None else {"device": device}
        student = student_of(*ready(make_run, kind, loss=loss, dtype=dtype, **where), tmp_path / str(device))
        by_device.append([metrics_of(folder) for folder in (student, student / "baseline")])
    for metrics, expected in zip(*by_device, strict=True):
        assert all(math.isfinite(row["loss"]) for row in metrics)
        for key in metrics[0].keys() & {"loss", "distillation", "cross_entropy"}:
            assert metrics[0][key] == pytest.approx(expected[0][key], **NEAR[dtype]), key
        near = 1e-3 if dtype == "float32" else 0.1
        assert metrics[0]["grad_norm"] == pytest.approx(expected[0]["grad_norm"], rel=near)
        assert metrics[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=0.02)
    saved = weights(tmp_path / "None")
    recipe, _ = ready(make_run, kind)
    teacher = LocalModel.open(recipe.teacher)
    begun = decoder(recipe.train.student, lambda: teacher.weights, 0).model
    assert all(value.dtype == torch.float32 for value in saved.values())
    assert any(not torch.equal(value, saved[name].cpu()) for name, value in begun.state_dict().items() if name in saved)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradient_checkpointing_gives_the_same_loss(make_run, tmp_path, dtype):
    settings = {"student": {"kind": "decoder", "layers": 2}, "baseline": False, "dtype": dtype}
    a, b = (
        metrics_of(student_of(*ready(make_run, **settings, gradient_checkpointing=on), tmp_path / str(on)))
        for on in (False, True)
    )
    assert a[0]["loss"] == b[0]["loss"]
    assert a[0]["grad_norm"] == pytest.approx(b[0]["grad_norm"], rel=1e-5 if dtype == "float32" else 1e-2)
    assert [row["loss"] for row in a] == pytest.approx([row["loss"] for row in b], rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["sampled", "topk"])
def test_micro_batches_add_up_to_the_step(make_run, tmp_path, kind, dtype):
    a, b = (
        metrics_of(
            student_of(*ready(make_run, kind, baseline=False, micro_batch_size=size, dtype=dtype), tmp_path / str(size))
        )
        for size in (16, 5)
    )
    near = 1e-4 if dtype == "float32" else 3e-2
    for key in ("loss", "distillation", "cross_entropy", "grad_norm"):
        assert a[0][key] == pytest.approx(b[0][key], rel=near), key
    assert [row["loss"] for row in a] == pytest.approx([row["loss"] for row in b], rel=max(near, 1e-3))


@pytest.mark.parametrize("kind", ["sampled", "topk"])
def test_gradients_are_those_of_the_cpu_whole_and_in_portions(make_run, kind):
    recipe, run = ready(make_run, kind)
    teacher = LocalModel.open(recipe.teacher)
    data = load(run / "curated", teacher.render, Choice(256))
    batch, gradients = data.examples[:13], []
    for device, size in ((torch.device("cpu"), 13), (teacher.model.device, 13), (teacher.model.device, 4)):
        model = decoder(recipe.train.student, lambda: teacher.weights, 0).model.to(device)
        objective = FromStored(model, recipe.train, data.meta)
        for begin in range(0, len(batch), size):
            objective(batch[begin : begin + size], batch)[0].backward()
        gradients.append([p.grad.cpu() for p in model.parameters()])
    for other in gradients[1:]:
        for a, b in zip(other, gradients[0], strict=True):
            assert float((a - b).abs().max()) < 1e-4 * max(1.0, float(b.abs().max()))


def test_the_distance_across_tokenizers_is_the_cpus(device):
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    shares = [np.sort(rng.dirichlet(np.ones(9)))[::-1].astype(np.float32).copy() for _ in range(3)]
    parts = tuple(Part(2 * n, 2 * n + 2, kept * 0.9, 0.01, 10) for n, kept in enumerate(shares))
    example = Example("x", [], list(range(7)), None, True, (), parts=parts)
    by_device = []
    for where in (device, torch.device("cpu")):
        generator.manual_seed(0)
        h, w = (torch.randn(*s, generator=generator).to(where).requires_grad_() for s in ((7, 8), (23, 8)))
        value = uld(h, Head(w), [example], 23)
        by_device.append([value.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(value, (h, w)))])
    for a, b in zip(*by_device, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


# Every kind of student

LORA = {"kind": "decoder", "layers": 1, "lora": {"r": 2}}
CONFIG = {"kind": "decoder", "config": {"num_hidden_layers": 3, "hidden_size": 8, "intermediate_size": 12}}
STUDENTS = {
    "low-rank": {"student": LORA},
    "random weights": {"student": CONFIG},
    "t5": {"student": {"kind": "seq2seq", "config": T5}},
    "bart": {"student": {"kind": "seq2seq", "config": BART}},
    "hidden states": {"student": CONFIG, "hidden": {}},
    "stored states": {"student": CONFIG, "hidden": {"stored": True}},
    "hidden cosine, relations": {"hidden": {"loss": "cosine"}, "relations": {}},
    "live teacher": {"online": {"mode": "teacher", "loss_temperature": 2.0}, "loss": "jsd"},
    "mutual": {"online": {"mode": "mutual"}, "loss": "forward_kl"},
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", STUDENTS)
def test_students_of_every_kind(make_run, tmp_path, name, dtype):
    """Trains a few steps. The loss of the first step equals that on the CPU. T5 and BART have no dropout here, because
    each device draws different random numbers.
    """
    settings = {"baseline": False, "max_steps": 3, "dtype": dtype, **STUDENTS[name]}
    if "config" in settings.get("student", {}) and settings["student"]["kind"] == "seq2seq":
        config = settings["student"]["config"]
        off = {"dropout_rate": 0.0} if config["model_type"] == "t5" else {"dropout": 0.0}
        settings["student"] = {"kind": "seq2seq", "config": config | off}
    metrics = metrics_of(student_of(*ready(make_run, **settings), tmp_path / "device"))
    expected = metrics_of(student_of(*ready(make_run, **settings, device="cpu"), tmp_path / "cpu"))
    assert len(metrics) == 3
    assert all(math.isfinite(value) for row in metrics for value in row.values())
    for key, value in expected[0].items():
        if key != "grad_norm":
            assert metrics[0][key] == pytest.approx(value, **NEAR[dtype]), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_student_learns_from_its_own_texts(make_run, tmp_path, dtype):
    online = {"mode": "on_policy", "lmbda": 1.0, "max_new_tokens": 12, "reuse": 2}
    settings = {"online": online, "loss": "reverse_kl", "max_steps": 4, "dtype": dtype}
    student = student_of(*ready(make_run, **settings), tmp_path / "student")
    metrics = metrics_of(student)
    assert all(0 < row["length"] <= 12 and math.isfinite(row["loss"]) for row in metrics)
    again = metrics_of(student_of(*ready(make_run, **settings), tmp_path / "again"))
    for key in ("length", "ended", "loss"):  # these are equal only if the student writes the same tokens
        assert again[0][key] == metrics[0][key], key
    assert len(metrics_of(student / "baseline")) == 4


# Resume


@contextmanager
def deterministic() -> Iterator[set[str]]:
    """Makes torch use deterministic kernels. Yields a set of torch's warnings about operations without such kernels."""
    named: set[str] = set()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield named
        named |= {str(w.message).split(". ")[0] for w in caught if "determin" in str(w.message)}
    finally:
        torch.use_deterministic_algorithms(False)


def differing(a, b) -> dict[str, float]:
    """Maps each file that differs between two students to the largest difference of its weights, or to NaN if the file
    holds no weights.
    """
    differences = {}
    for path in sorted(p for p in a.rglob("*") if p.suffix in (".safetensors", ".jsonl")):
        other = b / path.relative_to(a)
        if path.read_bytes() != other.read_bytes():
            largest = float("nan")
            if path.suffix == ".safetensors":
                weights_a, weights_b = load_file(path), load_file(other)
                largest = max(float((weights_a[name] - weights_b[name]).abs().max()) for name in weights_a)
            differences[str(path.relative_to(a))] = largest
    return differences


BYTES = {
    "draws": {},
    "topk": {"kind": "topk", "loss": "reverse_kl", "micro_batch_size": 5},
    "low-rank, dropout": {"student": {"kind": "decoder", "layers": 1, "lora": {"r": 2, "lora_dropout": 0.3}}},
    "hidden states": {"hidden": {}, "relations": {}},
    "stored states": {"hidden": {"stored": True}},
    "on-policy": {"online": {"mode": "on_policy", "lmbda": 0.5, "max_new_tokens": 12}},
}


@pytest.mark.parametrize("kernels", ["as they are", "deterministic"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BYTES)
def test_a_repeated_or_resumed_training_gives_the_same_bytes(make_run, tmp_path, name, dtype, kernels):
    """Three trainings give the same bytes of weights and metrics: two without interruption, and one that is cut and
    resumed.

    The cut comes after step three, one step after a checkpoint. If bytes differ, the failure names the operations for
    which torch did not use a deterministic kernel.
    """
    recipe, run = ready(make_run, baseline=False, dtype=dtype, **{"kind": "sampled", **BYTES[name]})
    with deterministic() if kernels == "deterministic" else nullcontext(set()):
        whole, again = (student_of(recipe, run, tmp_path / folder) for folder in ("whole", "again"))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, run, tmp_path / "cut", ui=Cut(3))
        resumed = student_of(recipe, run, tmp_path / "cut")
    apart = {"again": differing(whole, again), "resumed": differing(whole, resumed)}
    if any(apart.values()):
        with deterministic() as named:
            train(recipe, run, tmp_path / "watched")
        pytest.fail(f"{apart}; torch warns of operations that are not deterministic: {sorted(named) or 'none'}")


# Devices


def test_one_process_trains_on_several_devices(make_run, tmp_path, device):
    section = ready(make_run)[0].train
    for where in (device, torch.device("cpu"), device):
        assert accelerator_of(section, where, tmp_path).device.type == where.type


@pytest.mark.parametrize("where", [None, "cpu"])
def test_a_student_is_measured_where_its_teacher_is(make_run, tmp_path, where):
    """The teacher can be on the device, or on the CPU of a machine with a GPU."""
    recipe, run = ready(make_run, **({} if where is None else {"device": where}))
    student = student_of(recipe, run, tmp_path / "student")
    section = recipe.evaluate.model_copy(update={"max_rows": 8, "max_prompts": 2, "max_new_tokens": 8})
    found = evaluate(recipe.model_copy(update={"evaluate": section}), run, student)
    table = found.table
    assert all(math.isfinite(table[name]["kl"].mean) for name in ("distilled", "cross-entropy", "untrained"))
    assert table["distilled"]["tokens_per_second"] > 0


def test_out_of_memory_is_one_line_with_a_hint(make_run, tmp_path, device):
    if device.type != "cuda":
        pytest.skip("this test needs a GPU, because it fills the GPU's memory")
    config = {"hidden_size": 256, "intermediate_size": 8192, "num_hidden_layers": 4}
    recipe, run = ready(make_run, student={"kind": "decoder", "config": config}, baseline=False, batch_size=48)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + (300 << 20)  # weights take 100 MB, and activations of a layer take 300 MB
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(device).total_memory)
    try:
        with pytest.raises(UserError, match="out of memory in step 0, with") as caught:
            train(recipe, run, tmp_path / "student")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "lower train.micro_batch_size" in caught.value.hint
