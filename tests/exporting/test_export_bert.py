"""BERT classifiers as GGUF, read back by the `gguf` package; tests/llama has llama.cpp itself read the same files."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from support.small import bert_run
from tokenizers import processors
from transformers import DistilBertConfig, DistilBertForSequenceClassification

import distill
import synthgen
from distill.data import rows
from distill.exporting import bert
from distill.students.classifier import prompt_text
from distill.students.encoder import Encoder
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
        ours = bert.dequantized(folder / file, student).predict(asked)
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
    with pytest.raises(UserError, match="plain BERT classifiers alone; architecture: distilbert") as caught:
        bert.check(other)
    assert "onnx" in caught.value.hint
    student.model.config.hidden_act = "relu"
    with pytest.raises(UserError, match="plain BERT classifiers alone; activation: relu"):
        bert.check(student)


@pytest.mark.parametrize("flag", ["lowercase", "clean_text", "handle_chinese_chars"])
def test_another_tokenizer_is_refused(run, flag):
    student = Encoder.load(run / "student")
    bert.check(student)
    setattr(student.tokenizer.backend_tokenizer.normalizer, flag, False)
    with pytest.raises(UserError, match="not BERT's uncased one"):
        bert.check(student)


def test_a_tokenizer_that_puts_nothing_around_a_text_is_refused(run):
    student = Encoder.load(run / "student")
    student.tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    with pytest.raises(UserError, match="not BERT's uncased one"):
        bert.check(student)


def test_a_weight_without_a_name_is_refused(run):
    with pytest.raises(UserError, match="no name for the weight"):
        bert.tensor_name("bert.more.weight", 2)
    names = [n for n, _ in Encoder.load(run / "student").model.named_parameters()]
    assert len({bert.tensor_name(n, 2) for n in names}) == len(names)
