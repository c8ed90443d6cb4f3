"""Exports of students whose architecture or chat templates are unusual."""

from __future__ import annotations

from pathlib import Path

import gguf as gguf_package
import numpy as np
import pytest
import torch
from support.small import byte_tokenizer, small_teacher
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig

from distill.exporting import gguf
from distill.exporting.onnx import decoder_graph, quiet, save
from distill.exporting.running import open_model
from synthgen.errors import UserError
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.transformers import LocalModel

OTHER = "{% for m in messages %}tools {{ m['content'] }}{% endfor %}"


def values(path: Path, key: str) -> object:
    return gguf_package.GGUFReader(path).get_field(key).contents()


def test_gguf_has_every_named_chat_template(tmp_path):
    """The templates have the keys that llama.cpp's own converter writes."""
    folder = small_teacher(tmp_path / "model", words=True)
    tokenizer = byte_tokenizer(words=True)
    default = tokenizer.chat_template
    tokenizer.chat_template = {"default": default, "tool_use": OTHER}
    tokenizer.save_pretrained(folder)
    student = LocalModel.open(TeacherSection(model=str(folder), device="cpu"))
    assert isinstance(student.tokenizer.chat_template, dict)
    gguf.write_decoder(student, {}, tmp_path)
    file = tmp_path / "model-f16.gguf"
    assert values(file, "tokenizer.chat_template") == default
    assert values(file, "tokenizer.chat_template.tool_use") == OTHER
    assert values(file, "tokenizer.chat_templates") == ["tool_use"]


def test_gguf_names_the_token_that_ends_a_turn(tmp_path):
    """The tokenizer's end token is another one than that of the chat template, as in many base models."""
    folder = small_teacher(tmp_path / "model", words=True)
    tokenizer = byte_tokenizer(words=True)
    ends = tokenizer.eos_token_id
    tokenizer.eos_token = "<|im_start|>"
    tokenizer.save_pretrained(folder)
    gguf.write_decoder(LocalModel.open(TeacherSection(model=str(folder), device="cpu")), {}, tmp_path)
    file = tmp_path / "model-f16.gguf"
    assert values(file, "tokenizer.ggml.eot_token_id") == ends
    assert values(file, "tokenizer.ggml.eos_token_id") == tokenizer.eos_token_id != ends


def test_architectures_that_onnx_does_not_support_are_refused():
    config = AutoConfig.for_model("mamba", vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(UserError, match=r"\(mamba\) cannot be exported to ONNX: not every layer") as caught, quiet():
        decoder_graph(AutoModelForCausalLM.from_config(config).eval())
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.slow
def test_a_window_is_in_the_graph(tmp_path):
    """The text is longer than the window, and is read in two parts."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=6,
        initializer_range=0.5,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with quiet():
        save(decoder_graph(model), tmp_path / "model.onnx")
    ids = [(n * 7) % 40 for n in range(20)]
    runtime = open_model("onnxruntime", tmp_path / "model.onnx")
    found = np.concatenate([runtime.feed(ids[:11]), runtime.feed(ids[11:])])
    with torch.no_grad():
        wanted = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        model.set_attn_implementation("sdpa")
        for layer in model.model.layers:
            layer.self_attn.sliding_window = None
        model.config.sliding_window = None
        whole = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    assert np.abs(found - wanted).max() < 1e-4
    assert np.abs(found - whole).max() > 1e-2, "the text does not exceed the window"
