"""Encoder classifiers as ONNX: the student's probabilities, in a folder that runs by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch
from support.small import small_encoder, sorting_task

import distill
import synthgen
from distill.data import rows
from distill.exporting.int8 import quantize
from distill.exporting.running import open_encoder, reader
from distill.students.encoder import Encoder, prompt_text
from synthgen.errors import UserError

CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export-encoder")
    section = {
        "student": {"kind": "encoder", "config": CONFIG},
        "num_train_epochs": 12,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "baseline": False,
    }
    path = sorting_task(folder / "task", small_encoder(folder / "teacher"), seeds=120, train=section)
    recipe = synthgen.load_recipe(path)
    synthgen.generate(recipe, folder / "run")
    synthgen.curate(recipe, folder / "run")
    distill.train(recipe, folder / "run")
    distill.export(folder / "run", "onnx")
    return folder / "run"


def texts(run: Path) -> list[str]:
    found = [prompt_text(r) for r, _ in rows(run / "curated", "test")]
    return [*found, "lost", "my " * 40, "", "words that nobody knows", found[0] + " app"]


def test_onnx_is_the_student_whatever_it_is_padded_with(run):
    student, asked = Encoder.load(run / "student"), texts(run)
    predict = open_encoder("onnxruntime", run / "student" / "onnx" / "model.onnx")
    assert np.abs(predict(asked) - student.predict(asked)).max() < 1e-5
    assert np.abs(predict(asked)[:1] - predict(asked[:1])).max() < 1e-6


def test_eight_bits_lose_what_rounding_loses_and_no_more(run):
    student, asked = Encoder.load(run / "student"), texts(run)
    some = [prompt_text(r) for r, _ in rows(run / "curated", "train")[:64]]
    ids = student.tokenizer(some, truncation=True, max_length=24)["input_ids"]
    weights = quantize(student.model, ids)
    linear = {n for n, m in student.model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert linear <= set(weights)
    words = [n for n, m in student.model.named_modules() if m is student.model.get_input_embeddings()]
    with torch.no_grad():
        for name, module in student.model.named_modules():
            if name in words or (name in linear and not name.endswith(("pooler.dense", "classifier"))):
                module.weight.copy_(weights[name].dequantized())
    predict = open_encoder("onnxruntime", run / "student" / "onnx" / "model_int8.onnx")
    assert np.abs(predict(asked) - student.predict(asked)).max() < 1e-3


def test_most_weights_have_eight_bits(run):

    graph = onnx_ir.load(run / "student" / "onnx" / "model_int8.onnx").graph
    kinds = [node.op_type for node in graph]
    assert kinds.count("MatMulNBits") == 2 * 6, "each layer's query, key, value, output and two of the MLP"
    large = [v.name for v in graph.initializers.values() if v.const_value.nbytes > 4096 and "FLOAT" in str(v.dtype)]
    assert large == []


def test_tokens_are_those_of_transformers(run):
    folder, asked = run / "student" / "onnx", texts(run)
    student = Encoder.load(run / "student")
    ids, mask = reader(folder)(asked)
    for text, row, kept in zip(asked, ids, mask, strict=True):
        assert row[kept == 1].tolist() == student.tokenizer(text, truncation=True, max_length=24)["input_ids"]
        assert set(row[kept == 0].tolist()) <= {student.tokenizer.pad_token_id}


def test_it_runs_by_itself_and_its_figures_are_there(run):
    folder = run / "student" / "onnx"
    done = subprocess.run(
        [sys.executable, "-I", "predict.py", "lost", "my card was charged twice"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    predict = open_encoder("onnxruntime", folder / "model_int8.onnx")
    expected = predict([line["text"] for line in lines])
    assert np.allclose([list(line["probabilities"].values()) for line in lines], expected, atol=1e-5)
    assert list(lines[0]["probabilities"]) == ["delivery", "payment", "technical"]
    result = json.loads((folder / "export.json").read_text())
    table = result["table"]
    print({k: (v["bytes"], v.get("agreement"), v.get("max_logprob_difference")) for k, v in table.items()})
    assert result["passed"]
    assert result["kind"] == "encoder"
    assert table["ONNX, float32"]["agreement"] == 1.0
    assert table["ONNX, 8-bit weights"]["agreement"] >= 0.99
    for row in table.values():
        assert row["bytes"] > 0
        assert row["text_ms"]["p50"] <= row["text_ms"]["p95"]
        assert row["peak_rss_bytes"] > 1e6
    card, page = (folder / "README.md").read_text(), synthgen.report(run).path.read_text()
    assert "pip install onnxruntime tokenizers numpy" in card
    for name in table:
        assert f"| {name} |" in card
        assert name in page


def test_what_is_not_exported_is_said_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="tokenizer is not BERT's uncased one"):
        distill.export(run, "gguf")
    for kind in ("seq2seq", "sentence"):
        folder = tmp_path / kind
        folder.mkdir()
        for name in ("model.safetensors", "config.json"):
            (folder / name).touch()
        (folder / "training.json").write_text(json.dumps({"kind": kind}))
        for to in ("onnx", "gguf"):
            with pytest.raises(UserError, match=f"a student of kind '{kind}', which is not exported to {to}") as caught:
                distill.export(folder, to)
            assert "runs its folder as it is" in caught.value.hint
