"""Encoder classifiers as ONNX and GGUF give the student's probabilities, in folders that need nothing else.

The tests read GGUF files with the package `gguf`. In tests/llama, llama.cpp reads GGUF files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import onnx_ir
import pytest
import torch
from support.reading import training_of
from support.small import bert_run, word_tokenizer
from tokenizers import processors
from transformers import DistilBertConfig, DistilBertForSequenceClassification

import distill
import synthgen
from distill.data import rows
from distill.exporting import bert
from distill.exporting.int8 import quantize
from distill.exporting.running import open_encoder, reader
from distill.students.encoder import Encoder
from distill.students.labels import last_question
from synthgen import durable
from synthgen.errors import UserError
from synthgen.teachers.encoder import token_ids


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with a small BERT as student, exported in both formats."""
    run = bert_run(tmp_path_factory.mktemp("export-encoder"))
    distill.export(run, "onnx")
    distill.export(run, "gguf")
    return run


def texts(run: Path) -> list[str]:
    found = [last_question(r.prompt) for r, _ in rows(run / "curated", "test")]
    return [*found, "lost", "my " * 40, "", "words that nobody knows", found[0] + " app", "my [SEP] bill"]


def test_onnx_is_the_student_whatever_it_is_padded_with(run):
    student, asked = Encoder.load(run / "student"), texts(run)
    predict = open_encoder("onnxruntime", run / "student" / "onnx" / "model.onnx")
    assert np.abs(predict(asked) - student.predict(asked)).max() < 1e-5
    assert np.abs(predict(asked)[:1] - predict(asked[:1])).max() < 1e-6


def test_eight_bits_lose_what_rounding_loses_and_no_more(run):
    student, asked = Encoder.load(run / "student"), texts(run)
    some = [last_question(r.prompt) for r, _ in rows(run / "curated", "train")[:64]]
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
        assert row[kept == 1].tolist() == token_ids(student.tokenizer, [text], most=24)[0]
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
    student = shutil.copytree(run / "student", tmp_path / "student", ignore=shutil.ignore_patterns("onnx", "gguf"))
    for path in student.glob("tokenizer*"):
        path.unlink()
    word_tokenizer(student)
    training = json.loads((student / "training.json").read_text())
    durable.write_json(student / "training.json", {**training, "files": {}})  # the file is as an older version wrote it
    with pytest.raises(UserError, match="only BERT's uncased tokenizer"):
        distill.export(student, "gguf", held_out=run)
    assert not (student / "gguf").exists()
    for kind in ("seq2seq", "sentence"):
        folder = tmp_path / kind
        folder.mkdir()
        for name in ("model.safetensors", "config.json"):
            (folder / name).touch()
        (folder / "training.json").write_text(json.dumps(training_of(kind)))
        for to in ("onnx", "gguf"):
            with pytest.raises(
                UserError, match=f"a student of kind '{kind}', which cannot be exported to {to}"
            ) as caught:
                distill.export(folder, to)
            assert "loads the student's folder directly" in caught.value.hint


# GGUF


def test_both_files_hold_the_student(run):
    student, folder = Encoder.load(run / "student"), run / "student" / "gguf"
    asked = [last_question(r.prompt) for r, _ in rows(run / "curated", "test")]
    theirs = student.predict(asked)
    for file, most in (("model-f16.gguf", 2e-3), ("model-q8_0.gguf", 0.05)):
        ours = bert.dequantized(folder / file, student).predict(asked)
        assert 0 < np.abs(np.log(theirs) - np.log(ours)).max() < most
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(folder / "model-q8_0.gguf").tensors}
    assert kinds["blk.1.ffn_down.weight"] == kinds["token_embd.weight"] == "Q8_0"
    assert kinds["cls.output.weight"] == "Q8_0"
    assert kinds["token_types.weight"] == kinds["blk.0.attn_q.bias"] == "F32"


def test_what_a_gguf_file_says_of_itself(run):
    folder, student = run / "student" / "gguf", Encoder.load(run / "student")
    fields = gguf.GGUFReader(folder / "model-f16.gguf").fields
    assert fields["general.architecture"].contents() == "bert"
    assert fields["bert.classifier.output_labels"].contents() == student.labels
    assert fields["bert.pooling_type"].contents() == gguf.PoolingType.RANK
    assert fields["bert.attention.causal"].contents() is False
    assert fields["bert.context_length"].contents() == 24
    words = fields["tokenizer.ggml.tokens"].contents()
    vocabulary = student.tokenizer.get_vocab()
    assert words[vocabulary["parcel"]] == "▁parcel"
    assert words[vocabulary["##s"]] == "s"
    assert words[vocabulary["[CLS]"]] == "[CLS]"
    result = json.loads((folder / "export.json").read_text())
    assert result["passed"]
    assert {"student", "GGUF, float16", "GGUF, q8_0"} == set(result["table"])
    card, page = (folder / "README.md").read_text(), synthgen.report(run).path.read_text()
    assert "llama_model_n_cls_out" in card
    for name in result["table"]:
        assert f"| {name} |" in card
        assert name in page


def test_what_llama_cpp_cannot_run_is_refused(run):
    student = Encoder.load(run / "student")
    distil = DistilBertConfig(vocab_size=9, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    other = Encoder(student.labels, DistilBertForSequenceClassification(distil), student.tokenizer)
    with pytest.raises(
        UserError, match="only plain BERT classifiers; this student's architecture is distilbert"
    ) as caught:
        bert.check(other)
    assert "onnx" in caught.value.hint
    student.model.config.hidden_act = "relu"
    with pytest.raises(UserError, match="only plain BERT classifiers; this student's activation is relu"):
        bert.check(student)


@pytest.mark.parametrize("flag", ["lowercase", "clean_text", "handle_chinese_chars"])
def test_another_tokenizer_is_refused(run, flag):
    student = Encoder.load(run / "student")
    bert.check(student)
    setattr(student.tokenizer.backend_tokenizer.normalizer, flag, False)
    with pytest.raises(UserError, match="only BERT's uncased tokenizer"):
        bert.check(student)


def test_a_tokenizer_that_puts_nothing_around_a_text_is_refused(run):
    student = Encoder.load(run / "student")
    student.tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    with pytest.raises(UserError, match="only BERT's uncased tokenizer"):
        bert.check(student)


def test_a_weight_without_a_name_is_refused(run):
    with pytest.raises(UserError, match="no name for the weight"):
        bert.tensor_name("bert.more.weight", 2)
    names = [n for n, _ in Encoder.load(run / "student").model.named_parameters()]
    assert len({bert.tensor_name(n, 2) for n in names}) == len(names)
