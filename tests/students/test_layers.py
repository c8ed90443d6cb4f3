"""What a student of some of a teacher's layers is told about them, and the float32 in which both are compared."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.small import small_teacher
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from distill.students import decoder, sentence
from distill.students.layers import _refusal, config_of, from_layers, outputs
from distill.students.skipping import _in_float32
from synthgen.tables.students import DecoderStudent, SentenceStudent


@pytest.mark.parametrize(
    ("kind", "key", "value", "kept"),
    [
        # the number of layers of the first kind, of which layers 1, 2 and 4 keep so many
        *(("deepseek_v3", "first_k_dense_replace", value, kept) for value, kept in enumerate((0, 0, 1, 2, 2, 3))),
        ("qwen2", "max_window_layers", 2, 1),
        # the numbers of layers of a kind
        ("qwen3_moe", "mlp_only_layers", [0, 2, 3, 4], [1, 2]),
        ("bamba", "attn_layer_indices", [1, 3], [0]),
        # one value for each layer
        ("smollm3", "no_rope_layers", [1, 0, 1, 0, 1], [0, 1, 1]),
        ("llama", "num_hidden_layers", 5, 3),
        # about no layers, although the number or the length is that of the layers
        ("llama", "eos_token_id", [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
        ("llama", "vocab_size", 5, 5),
    ],
)
def test_the_config_of_a_student_is_about_its_own_layers(kind, key, value, kept):
    config = AutoConfig.for_model(kind, **{"num_hidden_layers": 5, key: value})
    assert config_of(config, [1, 2, 4]).get(key) == kept


def test_a_model_is_in_float32_only_within_the_block():
    model = nn.ModuleDict({"inside": nn.Linear(2, 2), "left_out": nn.Linear(2, 2)}).to(torch.bfloat16)
    model["inside"].register_buffer("table", torch.ones(3, dtype=torch.float16))
    model["inside"].register_buffer("counts", torch.ones(3, dtype=torch.long))
    model["inside"].register_buffer("none", None)
    model["inside"].register_parameter("codes", nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False))

    def kinds() -> dict[str, torch.dtype]:
        return {name: value.dtype for name, value in [*model.named_parameters(), *model.named_buffers()]}

    before, table = kinds(), model["inside"].table
    with _in_float32(model, but=[model["left_out"]]):
        assert kinds() == {
            "inside.weight": torch.float32,
            "inside.bias": torch.float32,
            "inside.codes": torch.int8,
            "inside.table": torch.float32,
            "inside.counts": torch.long,
            "left_out.weight": torch.bfloat16,
            "left_out.bias": torch.bfloat16,
        }
    assert kinds() == before
    assert model["inside"].table is table


def test_layers_of_a_teacher_in_bfloat16_are_copied_and_the_teacher_stays_as_it_was(tmp_path):
    name = small_teacher(tmp_path / "teacher", layers=3)
    teacher = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    student = from_layers(teacher, [2, 0])
    assert {value.dtype for value in student.state_dict().values()} == {torch.float32}
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert {value.dtype for value in teacher.state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize(("count", "shown"), [(3, "0, 1, 2"), (12, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")])
def test_a_refusal_names_twelve_layers_and_says_when_there_are_more(count, shown):
    teacher = SimpleNamespace(config=SimpleNamespace(model_type="llama"))
    assert f"layers {shown} of a llama model cannot be kept: no" in _refusal(teacher, range(count), "no").message
    assert "9, 10, 11, … of a llama model" in _refusal(teacher, range(13), "no").message


def test_without_layers_in_the_recipe_half_or_six_layers_are_kept():
    halves = {1: [0], 2: [0], 3: [0, 2], 4: [0, 3], 5: [0, 2, 4], 6: [0, 2, 5]}
    for depth, kept in halves.items():
        teacher = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(num_hidden_layers=depth)))
        assert sentence.layers_of(SentenceStudent(), teacher) == kept
        assert sentence.layers_of(SentenceStudent(layers=[0]), teacher) == [0]
    assert decoder.layers_of(DecoderStudent(), 6) == [0, 1, 2, 3, 4, 5]
    assert decoder.layers_of(DecoderStudent(), 11) == [0, 2, 4, 6, 8, 10]


def test_a_model_is_told_not_to_cache_only_if_it_can_be_told():
    def read(input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=input_ids + attention_mask)

    def with_cache(input_ids, attention_mask, use_cache=True):
        assert not use_cache
        return read(input_ids, attention_mask)

    def with_any(input_ids, attention_mask, **more):
        assert more == {"use_cache": False}
        return read(input_ids, attention_mask)

    ids = torch.tensor([[3, 4]])
    called = type("Model", (SimpleNamespace,), {"__call__": lambda self, **given: self.forward(**given)})
    for forward in (read, with_cache, with_any):
        model = called(forward=forward, config=SimpleNamespace(use_cache=True))
        assert outputs(model, ids).tolist() == [[4.0, 5.0]]


def test_a_card_names_the_origin_of_a_sentence_encoder():
    teacher = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(num_hidden_layers=6)))
    config = SimpleNamespace(hidden_size=32)
    made = SimpleNamespace(pooling="mean", normalize=True, dense=None, width=64, model=SimpleNamespace(config=config))
    for student, origin in (
        (SentenceStudent(layers=[0, 5]), "the teacher's layers [0, 5] and its embeddings"),
        (SentenceStudent(model="some/encoder"), "the checkpoint some/encoder"),
        (SentenceStudent(config={"hidden_size": 32}), "random weights, the teacher's config but for hidden_size"),
    ):
        assert sentence.describe(student, teacher, made).startswith(origin)
        assert sentence.describe(student, teacher, made).endswith("; mean pooling, normalized")
    made.dense = made.model
    assert sentence.describe(student, teacher, made).endswith("a Dense projection from 32 to 64 numbers is part of it")
