"""BERT classifiers as GGUF, read back by the `gguf` package; tests/llama has llama.cpp itself read the same files."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from small import bert_run

import distill
import synthgen
from distill.classifier import prompt_text
from distill.data import rows
from distill.encoder import Encoder
from distill.export import bert
from synthgen.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    run = bert_run(tmp_path_factory.mktemp("bert"))
    distill.export(run, "gguf")
    return run


def test_both_files_hold_the_student(run):
    student, folder = Encoder.load(run / "student"), run / "student" / "gguf"
    asked = [prompt_text(r) for r, _ in rows(run / "curated", "test")]
    theirs = student.predict(asked)
    for file, most in (("model-f16.gguf", 2e-3), ("model-q8_0.gguf", 0.05)):
        ours = bert.dequantised(folder / file, student).predict(asked)
        assert 0 < np.abs(np.log(theirs) - np.log(ours)).max() < most
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(folder / "model-q8_0.gguf").tensors}
    assert kinds["blk.1.ffn_down.weight"] == kinds["token_embd.weight"] == "Q8_0"
    assert kinds["cls.output.weight"] == "Q8_0"
    assert kinds["token_types.weight"] == kinds["blk.0.attn_q.bias"] == "F32"


def test_what_it_says_of_itself(run):
    folder, student = run / "student" / "gguf", Encoder.load(run / "student")
    fields = gguf.GGUFReader(folder / "model-f16.gguf").fields
    assert fields["general.architecture"].contents() == "bert"
    assert fields["bert.classifier.output_labels"].contents() == student.labels
    assert fields["bert.pooling_type"].contents() == gguf.PoolingType.RANK
    assert fields["bert.context_length"].contents() == 24
    words = fields["tokenizer.ggml.tokens"].contents()
    vocabulary = student.tokenizer.get_vocab()
    assert words[vocabulary["parcel"]] == "▁parcel"
    assert words[vocabulary["##s"]] == "s"
    assert words[vocabulary["[CLS]"]] == "[CLS]"
    result = json.loads((folder / "export.json").read_text())
    assert result["passed"]
    assert {"student", "GGUF, float16", "GGUF, q8_0"} == set(result["table"])
    card, page = (folder / "README.md").read_text(), synthgen.write_report(run).read_text()
    assert "llama_model_n_cls_out" in card
    for name in result["table"]:
        assert f"| {name} |" in card
        assert name in page


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_act": "relu"}, "activation: relu"),
        ({"model_type": "roberta"}, "architecture: roberta"),
    ],
)
def test_what_llama_cpp_cannot_run_is_refused(run, change, says):
    student = Encoder.load(run / "student")
    for key, value in change.items():
        type(student.model.config).model_type = "bert"
        setattr(student.model.config, key, value)
    with pytest.raises(UserError, match=f"plain BERT classifiers alone; {says}") as caught:
        bert.check(student)
    assert "onnx" in caught.value.hint


def test_a_cased_tokenizer_is_refused(run):
    student = Encoder.load(run / "student")
    normalizer = student.tokenizer.backend_tokenizer.normalizer
    normalizer.lowercase = False
    with pytest.raises(UserError, match="not BERT's uncased one"):
        bert.check(student)


def test_a_weight_without_a_name_is_refused(run):
    with pytest.raises(UserError, match="no name for the weight"):
        bert.tensor_name("bert.more.weight", 2)
    with torch.no_grad():
        names = [n for n, _ in Encoder.load(run / "student").model.named_parameters()]
    assert len({bert.tensor_name(n, 2) for n in names}) == len(names)
