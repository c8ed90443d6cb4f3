"""Exports give the same numbers as the student, in folders that need nothing else. Mistakes destroy nothing."""

from __future__ import annotations

import copy
import errno
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
from click.testing import CliRunner
from support import unaudited
from support.reading import training_of
from support.small import small_task, small_teacher
from test_cli import small_disk
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import distill
import distill.cli
import synthgen
from distill.exporting import gguf, int8, parity
from distill.exporting.decoder import calibration_pairs
from distill.exporting.int8 import BLOCK, gptq, quantize
from distill.exporting.running import open_model
from distill.students.classifier import Classifier
from synthgen import durable
from synthgen.errors import CorpusError, RunChanged, UserError
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.transformers import LocalModel

ONNX, INT8 = "ONNX, float32", "ONNX, 8-bit weights"
F16, Q8 = "GGUF, float16", "GGUF, q8_0"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with a one-layer student, exported in both formats. The small vocabulary makes the tests fast."""
    folder = tmp_path_factory.mktemp("export")
    merges = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("Ġ", "the")]
    teacher = small_teacher(folder / "teacher", merges=merges, width=64, words=True)
    recipe = synthgen.load_recipe(small_task(folder / "task", teacher, seeds=24))
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"baseline": False})})
    synthgen.generate(recipe, folder / "run")
    synthgen.curate(recipe, folder / "run")
    unaudited.train(recipe, folder / "run")
    distill.export(folder / "run", "onnx")
    distill.export(folder / "run", "gguf")
    return folder / "run"


@pytest.fixture
def result(run):
    return lambda to: json.loads((run / "student" / to / "export.json").read_text())


def student_of(run: Path) -> LocalModel:
    return LocalModel.open(TeacherSection(model=str(run / "student"), device="cpu"))


def calibration(run: Path, student: LocalModel) -> list[list[int]]:
    return [p + c for p, c in calibration_pairs(run / "curated", student)]


def rounded(run: Path) -> LocalModel:
    """The student with the rounded weights that the 8-bit files should contain."""
    student = student_of(run)
    weights = quantize(student.model, calibration(run, student))
    with torch.no_grad():
        for name, module in student.model.named_modules():
            if name in weights:
                module.weight.copy_(weights[name].dequantized())
    return student


def logits(model, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


def in_two_parts(path: Path, runtime: str, ids: list[int]) -> np.ndarray:
    """The logits of `ids`, computed in three calls that share a cache: the first half, the rest without the last token,
    and the last token.
    """
    model = open_model(runtime, path)
    half = len(ids) // 2
    return np.concatenate([model.feed(ids[:half]), model.feed(ids[half:-1]), model.feed(ids[-1:])])


IDS = [int(i) for i in np.random.default_rng(0).integers(20, 250, 40)]


def weight_bytes(path: Path) -> int:
    """The size in bytes of the weights in an ONNX graph."""
    return sum(v.const_value.nbytes for v in onnx_ir.load(path).graph.initializers.values())


def test_onnx_is_the_student(run, result):
    found = result("onnx")
    assert list(found["table"]) == ["student", ONNX, INT8]
    assert found["table"][ONNX]["agreement"] == 1
    assert found["table"][ONNX]["max_logprob_difference"] < 1e-3
    path = run / "student" / "onnx" / "model.onnx"
    expected = logits(student_of(run).model, IDS)
    assert np.abs(in_two_parts(path, "onnxruntime", IDS) - expected).max() < 1e-3
    assert weight_bytes(path) < 1.1 * (run / "student" / "model.safetensors").stat().st_size, "a table twice?"


def test_eight_bits_lose_what_rounding_loses_and_no_more(run):
    """The graph's weights have 8 bits and its activations 16 bits, so its output is nearly that of a student with
    rounded weights.
    """
    path = run / "student" / "onnx" / "model_int8.onnx"
    expected, before = logits(rounded(run).model, IDS), logits(student_of(run).model, IDS)
    found = in_two_parts(path, "onnxruntime", IDS)
    assert np.abs(found - expected).max() < np.abs(before - expected).max() / 20
    assert weight_bytes(path) < 0.35 * weight_bytes(run / "student" / "onnx" / "model.onnx")


def test_rows_of_a_batch_do_not_mix(run):
    """Two prompts of different lengths are in one batch, where the shorter prompt is padded on the left. The output of
    each prompt is the same as without the other prompt.
    """
    import onnxruntime

    folder = run / "student" / "onnx"
    long, short = IDS[:9], IDS[20:25]
    for name in ("model.onnx", "model_int8.onnx"):
        session = onnxruntime.InferenceSession(folder / name)
        feed = {
            "input_ids": np.array([long, [0] * 4 + short]),
            "attention_mask": np.array([[1] * 9, [0] * 4 + [1] * 5]),
            "position_ids": np.array([[*range(9)], [0] * 4 + [*range(5)]]),
        }
        past = [i for i in session.get_inputs() if i.name.startswith("past_")]
        feed |= {i.name: np.zeros((2, i.shape[1], 0, i.shape[3]), np.float32) for i in past}
        (both, *_) = session.run(None, feed)
        for row, ids in ((both[0], long), (both[1][4:], short)):
            assert np.abs(row - open_model("onnxruntime", folder / name).feed(ids)).max() < 1e-3


def test_rounding_makes_up_for_its_errors():
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(500, 8, generator=generator) @ torch.randn(8, 96, generator=generator)
    x = few + 0.1 * torch.randn(500, 96, generator=generator)  # correlated inputs, as in a real layer
    weight = torch.randn(40, 96, generator=generator)
    nearest, careful = gptq(weight, None), gptq(weight, x.T @ x)
    blocks = weight.unflatten(-1, (-1, BLOCK))
    step = nearest.scales_NB.float()[..., None]
    assert torch.equal(
        nearest.values_NK.unflatten(-1, (-1, BLOCK)), (blocks / step).round().clamp(-127, 127).to(torch.int8)
    )

    def error(found: int8.Int8) -> float:
        return float(((found.dequantized() - weight) @ x.T).norm())

    assert error(careful) < error(nearest) / 3
    again = gptq(nearest.dequantized(), x.T @ x)
    assert torch.equal(again.values_NK, nearest.values_NK), "what lies on the grid stays there"
    empty = gptq(torch.zeros(2, 64), None)
    assert torch.equal(empty.dequantized(), torch.zeros(2, 64))


def test_layers_that_read_the_same_share_what_is_known_of_it(run):
    student = student_of(run)
    rows = calibration(run, student)
    found = int8._hessians(student.model, rows)
    layer = "model.layers.0.self_attn"
    assert found[f"{layer}.q_proj"] is found[f"{layer}.v_proj"]
    assert found[f"{layer}.q_proj"] is not found[f"{layer}.o_proj"]
    with torch.inference_mode():
        seen = torch.cat([student.model.get_decoder()(torch.tensor([r])).last_hidden_state[0] for r in rows])
    torch.testing.assert_close(found["lm_head"], seen.T @ seen, rtol=1e-3, atol=1e-2)


def test_gguf_is_the_student(run, result):
    folder = run / "student" / "gguf"
    student, expected = student_of(run), logits(student_of(run).model, IDS)
    half = copy.deepcopy(student.model)
    with torch.no_grad():
        for parameter in half.parameters():
            if parameter.dim() > 1:  # weights of norms stay float32
                parameter.copy_(parameter.half())
    for file, wanted in (("model-f16.gguf", logits(half, IDS)), ("model-q8_0.gguf", logits(rounded(run).model, IDS))):
        assert np.abs(in_two_parts(folder / file, "transformers", IDS) - wanted).max() < 1e-3, file
    assert np.abs(expected - logits(half, IDS)).max() > 1e-5
    assert result("gguf")["table"][F16]["agreement"] >= 0.99
    theirs = AutoTokenizer.from_pretrained(folder, gguf_file="model-q8_0.gguf")
    for text in ("What is 12 plus 345?\n  it's", "naïve → ≠ ok", "<|im_start|>user\nhello<|im_end|>"):
        assert theirs(text)["input_ids"] == student.tokenizer(text)["input_ids"]
    assert theirs.chat_template == student.tokenizer.chat_template
    assert theirs.eos_token_id == student.tokenizer.eos_token_id


def test_what_gguf_cannot_hold_is_refused(run):
    student = student_of(run)
    assert gguf.check(student) == "gpt-2"
    for key, value in (("model_type", "qwen2"), ("attention_bias", True), ("rope_parameters", {"rope_type": "yarn"})):
        other = copy.copy(student)
        other._model = copy.copy(student.model)
        other.model.config = copy.deepcopy(student.model.config)
        setattr(other.model.config, key, value)
        with pytest.raises(UserError, match="plain Llama") as caught:
            gguf.check(other)
        assert "--to onnx" in caught.value.hint


def test_the_card_tells_how_to_run_it_and_whose_it_is(run):
    """The program in README.md runs in its own folder and prints the student's output."""
    folder = run / "student" / "onnx"
    card = (folder / "README.md").read_text()
    assert "Apache-2.0" in card
    assert "CC0-1.0" in card
    assert "## What the student lost or gained" in card
    for row in (ONNX, INT8):
        assert f"| {row} |" in card
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    program = program.replace("model_int8.onnx", "model.onnx")
    done = subprocess.run([sys.executable, "-I", "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, tokenizer = AutoModelForCausalLM.from_pretrained(run / "student"), AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": re.search(r'"content": "(.*?)"', program)[1]}]
    text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    settings = GenerationConfig(max_new_tokens=32, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    answer = model.generate(ids, settings)[0, ids.shape[1] :]
    assert done.stdout.strip() == tokenizer.decode([t for t in answer if t != tokenizer.eos_token_id]).strip()


def test_each_file_has_its_figures(run, result):
    for to in ("onnx", "gguf"):
        found = result(to)
        assert json.loads((run / "student" / f"export-{to}.json").read_text()) == found
        assert found["rows"] > 0
        for name, row in found["table"].items():
            where = run / "student" if name == "student" else run / "student" / to
            assert row["bytes"] == (where / found["files"][name]["file"]).stat().st_size
            if to == "onnx" or importlib.util.find_spec("llama_cpp"):
                assert 0 < row["token_ms"]["p50"] <= row["token_ms"]["p95"]
                assert row["tokens_per_second"] > 0
                assert row["peak_rss_bytes"] > row["bytes"]
    table = result("onnx")["table"]
    assert table[ONNX]["peak_rss_bytes"] < table["student"]["peak_rss_bytes"], "torch in the process of another"


def test_the_page_shows_exports(run, tmp_path):
    from test_report import Page

    shutil.copytree(run, tmp_path / "run")
    page = Page(synthgen.report(tmp_path / "run").path.read_text())
    assert not page.faults
    for row in (ONNX, INT8, F16, Q8):
        assert row in page.text


@pytest.fixture
def classifier(tmp_path, run) -> Path:
    """A folder like a run, with a classifier of random weights as student."""
    rng = np.random.default_rng(0)
    shapes = {"embed": (512, 16), "bias": (16,), "out": (16, 3), "out_bias": (3,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    folder = tmp_path / "classifier"
    Classifier(["a", "b", "c"], **arrays).save(folder)
    durable.write_json(folder / "training.json", training_of("classifier"))
    (folder / "README.md").write_text("---\ntags: []\n---\n# a card\nterms MIT\n")
    return folder


def test_done_again_it_does_nothing_and_other_inputs_are_refused(classifier, run, tmp_path):
    out = tmp_path / "edge"
    (tmp_path / ".tmp-edge").mkdir()
    (tmp_path / ".tmp-edge" / "junk").write_text("of a killed process")
    first = distill.export(classifier, "onnx", out, held_out=run)
    assert not (out / "junk").exists()
    assert not list(tmp_path.glob(f"{durable.TEMPORARY}*"))
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    (classifier / "export-onnx.json").unlink()
    assert distill.export(classifier, "onnx", out, held_out=run) == first
    assert before == {p: p.stat().st_mtime_ns for p in out.iterdir()}
    card, before_card = classifier / "README.md", (out / "README.md").read_text()
    card.write_text(card.read_text() + "It was evaluated.\n")
    assert distill.export(classifier, "onnx", out, held_out=run) == first
    assert (out / "README.md").read_text() == before_card.rstrip("\n") + "\nIt was evaluated.\n"
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert json.loads((classifier / "export-onnx.json").read_text()) == first.to_dict()
    config = json.loads((classifier / "config.json").read_text())
    (classifier / "config.json").write_text(json.dumps({**config, "labels": ["x", "y", "z"]}))
    with pytest.raises(RunChanged, match=r"config\.json") as caught:
        distill.export(classifier, "onnx", out, held_out=run)
    assert "--fresh" in caught.value.hint
    assert before == {p: p.stat().st_mtime_ns for p in out.iterdir()}
    assert distill.export(classifier, "onnx", out, held_out=run, fresh=True).inputs != first.inputs
    assert "x" in (out / "config.json").read_text()


def test_below_the_threshold_is_exit_1_and_written_all_the_same(classifier, run, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "LEAST", 1.5)
    out = tmp_path / "edge"
    command = ["export", str(classifier), "--to", "onnx", "-o", str(out), "--corpus", str(run), "--json", "-q"]
    for _ in range(2):  # the second call finds the existing export, which fails the gate again
        done = CliRunner().invoke(distill.cli.main, command)
        assert done.exit_code == 1, done.output
        assert json.loads(done.stdout)["passed"] is False
        assert "Error: ONNX, float32 (100.00%)" in done.stderr
        assert (out / "model.onnx").exists()
        assert "**not passed**" in (out / "README.md").read_text()


def test_a_classifier_runs_by_itself(classifier, run, tmp_path):
    found = distill.export(classifier, "onnx", tmp_path / "edge", held_out=run)
    assert found.table[ONNX]["agreement"] == 1
    assert found.table[ONNX]["max_logprob_difference"] < 1e-4
    for graph in (tmp_path / "edge" / "model.onnx", run / "student" / "onnx" / "model.onnx"):
        assert onnx_ir.load(graph).ir_version == 10, "older versions of onnxruntime refuse newer graphs"
    assert "terms MIT" in (tmp_path / "edge" / "README.md").read_text()
    texts = ["Where is my parcel? Where?", "", "Ünïcode 12", "a much longer text with more pieces than the others"]
    script = [sys.executable, "-I", str(tmp_path / "edge" / "predict.py"), *texts]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == texts
    expected = Classifier.load(classifier).predict(texts)
    np.testing.assert_allclose([[*row["probabilities"].values()] for row in rows], expected, rtol=1e-4, atol=1e-6)


def test_mistakes(run, classifier, tmp_path, monkeypatch):
    def refused(error: type[UserError], said: str, hint: str, *given, **more) -> None:
        before = sorted(p for p in tmp_path.rglob("*") if p.name != "export-onnx.json")
        with pytest.raises(error, match=said) as caught:
            distill.export(*given, **more)
        assert "\n" not in caught.value.message
        assert hint in caught.value.hint
        assert sorted(p for p in tmp_path.rglob("*") if p.name != "export-onnx.json") == before

    refused(CorpusError, "does not exist", "student", tmp_path / "nowhere", "onnx")
    for name, files in (("empty", ()), ("half", ("inputs.json",)), ("no weights", ("training.json", "config.json"))):
        shutil.copytree(run, tmp_path / name, ignore=shutil.ignore_patterns("student", "logits"))
        (tmp_path / name / "student").mkdir()
        for file in files:
            shutil.copy(run / "student" / file, tmp_path / name / "student" / file)
    refused(CorpusError, "no trained student", "distill train", tmp_path / "empty", "onnx")
    refused(CorpusError, "an unfinished student", "distill train", tmp_path / "half", "onnx")
    refused(CorpusError, r"has no model\.safetensors", "--fresh", tmp_path / "no weights", "onnx")
    refused(CorpusError, "no corpus", "", classifier, "onnx")
    refused(UserError, "'classifier', which cannot be exported to gguf", "--to onnx", classifier, "gguf", held_out=run)
    refused(UserError, "no model format 'onx'; did you mean 'onnx'", "--to", classifier, "onx", held_out=run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for fresh in (False, True):
        refused(RunChanged, "is not an export", "-o", run, "gguf", tmp_path / "mine", fresh=fresh)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name))
    refused(UserError, "'onnxruntime', which is not installed", "synthgen-distill[export]", run, "onnx", tmp_path / "x")


def test_half_a_file_of_weights(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("onnx", "gguf"))
    weights = tmp_path / "run" / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(CorpusError, match=r"has been changed: model.safetensors is not as training wrote it"):
        distill.export(tmp_path / "run", "gguf")
    assert not (tmp_path / "run" / "student" / "gguf").exists()
    assert not list((tmp_path / "run" / "student").glob(".tmp*"))


def test_a_full_disk_loses_nothing(classifier, run, tmp_path):
    if not shutil.which("mount"):
        pytest.skip("there is no `mount` here")
    with small_disk(tmp_path / "disk", "16k") as enlarge:  # this disk is too small for the model, which has 33 kB
        out = tmp_path / "disk" / "edge"
        command = ["export", str(classifier), "--to", "onnx", "-o", str(out), "--corpus", str(run), "-q"]
        done = CliRunner().invoke(distill.cli.main, command)
        assert done.exit_code == 2, done.output
        assert "the disk is full" in done.stderr
        assert not list((tmp_path / "disk").iterdir())
        student = student_of(run)
        with pytest.raises(OSError, match=r"space|written") as caught:
            gguf.write_decoder(student, {}, tmp_path / "disk")
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "disk" / "model-f16.gguf"))
        shutil.rmtree(tmp_path / "disk", ignore_errors=True)
        enlarge("2m")
        done = CliRunner().invoke(distill.cli.main, command)
        assert done.exit_code == 0, done.output
        assert (out / "export.json").exists()


@pytest.mark.slow
def test_the_demos_student_and_its_teacher(tmp_path_factory, tmp_path, smol):
    """Every exported file of the demo's student passes the gate. The teacher also passes the gate when it is exported
    like a student. llama.cpp is used if it is installed.
    """
    recipe = synthgen.load_recipe("reasoning")
    folder = tmp_path_factory.mktemp("demo") / "run"
    synthgen.run(recipe, folder)
    for to in ("onnx", "gguf"):
        found = distill.export(folder, to)
        print(found)
        # llama.cpp rounds activations to eight bits, which can change an uncertain choice of the student.
        assert set(found.below) <= ({Q8} if found.files[Q8 if to == "gguf" else INT8].runtime == "llama.cpp" else set())
    teacher = tmp_path / "teacher"
    smol.model.save_pretrained(teacher)
    smol.tokenizer.save_pretrained(teacher)
    durable.write_json(teacher / "training.json", training_of("decoder"))
    found = distill.export(teacher, "onnx", held_out=folder)
    assert found.passed, found
