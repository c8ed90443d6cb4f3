"""Sentence encoders from the layers of teachers whose layers are not all alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.small import word_tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    ModernBertConfig,
    ModernBertModel,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5ForConditionalGeneration,
)

from distill.students.sentence import sentence
from synthgen.errors import RecipeError
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import SentenceStudent
from synthgen.teachers.embedding import SentenceEncoder

TEXTS = ["where is my parcel", "the app crashes", "lost", "my card was charged twice and the bill is lost"]


def section(folder: Path) -> TeacherSection:
    return TeacherSection(model=str(folder), device="cpu", license="Apache-2.0")


def t5_encoder(folder: Path, layers: int = 4) -> Path:
    """An encoder-decoder checkpoint. The sentence encoder is the encoder of this checkpoint."""
    tokenizer = word_tokenizer(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=24, num_layers=layers, num_heads=2, decoder_start_token_id=0
    )
    model = T5ForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.4)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layers", [[0, 3], [1, 3]])
def test_blocks_of_t5(tmp_path, layers):
    """Only T5's first block has the table of relative positions. The student's first block gets it."""
    teacher = SentenceEncoder.open(section(t5_encoder(tmp_path / "t5")))[0]
    assert teacher.vectors(TEXTS).shape == (4, 16)
    student = sentence(SentenceStudent(layers=layers), teacher, 0).eval()
    for new, old in enumerate(layers):
        ours, theirs = student.model.encoder.block[new], teacher.model.encoder.block[old]
        assert torch.equal(ours.layer[1].DenseReluDense.wi.weight, theirs.layer[1].DenseReluDense.wi.weight)
    student.save_pretrained(tmp_path / "student")
    word_tokenizer(tmp_path / "student")
    again = SentenceEncoder.open(section(tmp_path / "student"))[0]
    assert torch.allclose(again.vectors(TEXTS), student.vectors(TEXTS), atol=1e-5)


def test_the_first_layer_of_modernbert_is_special(tmp_path):
    """The first layer has no norm before its attention. A later layer that took its place would lose its own norm."""
    tokenizer = word_tokenizer(tmp_path)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        pad_token_id=0,
    )
    teacher = SentenceEncoder(ModernBertModel(config).eval(), tokenizer)
    assert sentence(SentenceStudent(layers=[0, 2]), teacher, 0).model.config.layer_types == [
        config.layer_types[i] for i in (0, 2)
    ]
    with pytest.raises(RecipeError, match=r"'layers.1.attn_norm.weight' of the teacher has no place"):
        sentence(SentenceStudent(layers=[1, 3]), teacher, 0)


def test_layers_of_an_embedding_model_that_was_a_decoder(tmp_path):
    """A model that was a decoder fills a cache when it reads a text."""
    tokenizer = word_tokenizer(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=4, head_dim=8, **sizes)
    teacher = SentenceEncoder(Qwen3Model(config).eval(), tokenizer)
    student = sentence(SentenceStudent(layers=[1, 3]), teacher, 0)
    ours, theirs = student.model.layers[0], teacher.model.layers[1]
    assert torch.equal(ours.mlp.up_proj.weight, theirs.mlp.up_proj.weight)


@pytest.mark.parametrize(
    ("name", "pad", "room"),
    [("bert", 3, 32), ("xlm-roberta", 3, 28), ("camembert", 3, 28), ("mpnet", 3, 30), ("data2vec-text", 1, 30)],
)
def test_a_text_is_cut_to_the_positions_that_the_model_uses(tmp_path, name, pad, room):
    tokenizer = word_tokenizer(tmp_path)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        name, vocab_size=len(tokenizer), max_position_embeddings=32, pad_token_id=pad, bos_token_id=0, **sizes
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    teacher = SentenceEncoder.open(section(tmp_path))[0]
    assert teacher.context == room
    assert teacher.vectors(["lost " * 100]).shape == (1, 16), "every position has a row in the table"
