"""Models of many architectures write and read in batches what they do for each text alone, or are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.small import byte_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from distill.output_layer import output_head
from synthgen.errors import TeacherError
from synthgen.lm.model import LanguageModel
from synthgen.lm.sampling import Sampler
from synthgen.lm.tokens import Tokens
from synthgen.lm.writing import Prompt

_SCAN = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 4, "num_key_value_heads": 2}
_LINEAR = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
_DECODER = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
MODELS: dict[str, dict[str, Any]] = {
    "gemma2": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6},
    "mamba": {"state_size": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 4},
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
    "qwen3_5_text": _LINEAR,
    "falcon_h1": {**_SCAN, "mamba_d_ssm": 64},
    "jamba": {"num_key_value_heads": 2, **_EXPERTS, "mamba_d_state": 4, "use_mamba_kernels": False},
}
REFUSED: dict[str, dict[str, Any]] = {
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"], "num_key_value_heads": 2},
    "rwkv": {"attention_hidden_size": 32, "context_length": 96},
    "roberta": {"is_decoder": True, "pad_token_id": 1},
    "bart": {**_DECODER, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48},
}
TEXTS = [[5, 77, 130, 9, 200, 31, 60], [44, 18], [90, 100, 101, 250, 7], [5, 77, 130, 9, 200, 31, 60]]
LENGTHS = [6, 2, 4, 3]
LABELS = [[65], [66, 67], [66, 70, 71]]


def model_of(name: str, keys: dict[str, Any]) -> Any:
    """A tiny decoder with random weights."""
    common = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    known = AutoConfig.for_model(name)
    values = {k: v for k, v in common.items() if hasattr(known, k)} | {"vocab_size": 264, "pad_token_id": 0} | keys
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **values), dtype=torch.float32).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1 and "A_log" not in key:
                weight.normal_(0, 0.2)
    return model


def logp_alone(model: Any, text: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([text]), use_cache=False).logits[0, -1].log_softmax(-1)


def written_alone(model: Any, text: list[int], count: int) -> list[int]:
    text = list(text)
    for _ in range(count):
        text.append(int(logp_alone(model, text).argmax()))
    return text[-count:]


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_has_what_each_text_has_alone(name):
    model = model_of(name, MODELS[name])
    batched = LanguageModel.of(model, Tokens(byte_tokenizer(), frozenset()), 4)
    prompts = [Prompt(text, f"{n:032x}", count) for n, (text, count) in enumerate(zip(TEXTS, LENGTHS, strict=True))]
    written = [one.tokens for one in batched.write(prompts, Sampler(0.0))]
    assert written == [written_alone(model, text, count) for text, count in zip(TEXTS, LENGTHS, strict=True)]
    for (probs, _), text in zip(batched.label_probs(TEXTS, LABELS), TEXTS, strict=True):
        for prob, label in zip(probs, LABELS, strict=True):
            alone = sum(float(logp_alone(model, [*text, *label[:n]])[token]) for n, token in enumerate(label))
            assert math.log(prob) == pytest.approx(alone, abs=1e-4)
    for logp_TV, text in zip(batched.logprobs(TEXTS, [[65, 66]] * 4), TEXTS, strict=True):
        assert torch.allclose(logp_TV[1], logp_alone(model, [*text, 65]), atol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_whose_batches_are_wrong_is_refused(name):
    model = model_of(name, REFUSED[name])
    batched = LanguageModel.of(model, Tokens(byte_tokenizer(), frozenset()), 4)
    calls = {
        "write": lambda: batched.complete(TEXTS, [f"{n:032x}" for n in range(4)], 0.0, 2),
        "be run": lambda: batched.logprobs(TEXTS, [[65, 66]] * 4),
        "be": lambda: output_head(model),  # before a student is trained
    }
    for what, call in calls.items():
        with pytest.raises(TeacherError, match=f"a model of type '{name}' cannot {what}.*in batches") as caught:
            call()
        assert "another architecture" in caught.value.hint
    assert not model.training


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("llama4_text", {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48}),
        ("electra", {"is_decoder": True, "embedding_size": 16}),
    ],
)
def test_a_model_without_hidden_states_for_its_output_layer_is_used_whole(name, keys):
    assert output_head(model_of(name, keys)) is None
