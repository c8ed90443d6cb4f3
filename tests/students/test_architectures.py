"""Students of twenty architectures: made from a teacher's layers, trained, saved, and run with plain transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.small import byte_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from distill.arms import StudentModel, save
from distill.data import Example
from distill.output_layer import completion_states, logits_of, output_head
from distill.students.layers import from_layers
from distill.targets.stored import FromTokens
from synthgen.errors import RecipeError
from synthgen.recipe import TrainSection

_GROUPED = {"num_key_value_heads": 2}
_WINDOW = {**_GROUPED, "head_dim": 8, "sliding_window": 6}
_ALTERNATING = ["sliding_attention", "full_attention"] * 2
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
_ROUTED = {**_EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
_PACKED = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 264, "num_kv_shared_layers": 0}
_SCAN = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 4}

# For each architecture: the keys of its config that differ from the configs of other architectures, and the layers that
# are kept.
ARCHITECTURES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "llama": (_GROUPED, [0, 3]),
    "gpt2": ({}, [0, 3]),
    "gpt_neo": ({"attention_types": [[["global", "local"], 2]], "window_size": 6, "num_heads": 4}, [1, 2]),
    "gptj": ({"rotary_dim": 8}, [0, 3]),
    "falcon": ({}, [1, 3]),
    "bloom": ({}, [0, 3]),
    "opt": ({"word_embed_proj_dim": 32, "ffn_dim": 48}, [3, 1]),
    "qwen2": ({**_GROUPED, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}, [1, 2]),
    "smollm3": ({**_GROUPED, "no_rope_layers": [1, 0, 1, 0]}, [0, 2]),
    "gemma3_text": ({**_WINDOW, "layer_types": _ALTERNATING}, [1, 2]),
    "gemma4_text": ({**_WINDOW, **_PACKED, "global_head_dim": 8, "layer_types": _ALTERNATING}, [0, 3]),
    "qwen3_moe": ({**_GROUPED, **_EXPERTS, "head_dim": 8, "mlp_only_layers": [0]}, [1, 3]),
    "deepseek_v3": ({**_LATENT, **_ROUTED, "first_k_dense_replace": 1}, [0, 3]),
    "bamba": ({**_GROUPED, **_SCAN, "attn_layer_indices": [1, 3]}, [0, 3]),
    "phi": ({}, [0, 3]),
    "gpt_neox": ({}, [1, 3]),
    "gemma2": (_WINDOW, [0, 1]),
    "mixtral": ({**_GROUPED, **_EXPERTS}, [0, 2]),
    "deepseek_v2": ({**_LATENT, **_ROUTED, "first_k_dense_replace": 2}, [1, 2]),
    "gpt_oss": (_WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": _ALTERNATING}, [1, 2]),
    "mamba": ({"state_size": 4}, [0, 3]),
    "lfm2": ({**_GROUPED, "layer_types": ["conv", "full_attention"] * 2}, [0, 3]),
    "modernbert-decoder": ({"local_attention": 6}, [0, 2]),
}
_FAST = list(ARCHITECTURES)[:14]


def teacher_of(name: str, **changes: Any) -> Any:
    """A tiny teacher with random weights. Its biases, norms and buffers are random too, so the test notices when one of
    them is missing.
    """
    tokenizer = byte_tokenizer()
    common = {
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 96,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 0,
    }
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, **(common | ARCHITECTURES.get(name, ({}, []))[0] | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
        for key, buffer in model.named_buffers():
            if "correction_bias" in key or "layer_scalar" in key:
                buffer.add_(0.3 * torch.randn_like(buffer))
    # the teacher is like a checkpoint with a different end token
    model.generation_config = GenerationConfig(eos_token_id=5)
    return model


def logits_in_training(model: Any, row: Example) -> torch.Tensor:
    """The logits (T, V) of a row as the loss computes them."""
    head = output_head(model)
    with torch.no_grad():
        states = completion_states(model, head, [row.prompt], [row.completion])
        return states if head is None else logits_of(states, head)


@pytest.mark.parametrize("name", [n if n in _FAST else pytest.param(n, marks=pytest.mark.slow) for n in ARCHITECTURES])
def test_a_student_of_this_architecture(name, tmp_path):
    teacher, tokenizer = teacher_of(name), byte_tokenizer()
    student = from_layers(teacher, ARCHITECTURES[name][1])
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)["input_ids"]
    row = Example("r", list(prompt), [*tokenizer("ok")["input_ids"], tokenizer.eos_token_id], None, True)
    before = logits_in_training(student, row)
    _train(student.train(), row)
    learned = logits_in_training(student.eval(), row)
    assert not torch.allclose(before, learned, atol=1e-2), "training changed nothing"
    save(StudentModel(student), tokenizer, tmp_path / "student", [])

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32).eval()
    with torch.no_grad():
        whole = plain(torch.tensor([[*row.prompt, *row.completion]])).logits[0, len(row.prompt) - 1 : -1]
    assert float((whole - learned).abs().max()) < 2e-3, "plain transformers computes other logits than training did"
    written = plain.generate(torch.tensor([row.prompt]), max_new_tokens=12, do_sample=False)[0, len(row.prompt) :]
    assert written.tolist() == row.completion, "it does not write what it learned, or does not stop"
    read = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert read.chat_template == tokenizer.chat_template
    assert read.eos_token_id == tokenizer.eos_token_id


def _train(model: Any, row: Example) -> None:
    """Teach the model one row by heart, with the loss of the package: at least two steps, until the row is known."""
    objective = FromTokens(model, TrainSection.model_validate({"student": {"kind": "decoder"}}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for step in range(60):
        loss, _ = objective([row], [row])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step and float(loss.detach()) < 0.02:
            return


REFUSED = {
    # the first layer has no norm before its attention, and another layer has one
    "modernbert-decoder": ([1, 3], "attn_norm"),
    # the config gives the kinds of layers by a period and an offset, which cannot describe these layers
    "jamba": ([1, 3], "has no place in the student"),
    # the last layer must have full attention
    "gemma4_text": ([0, 2], "full_attention for layer_type"),
    # only the first layer normalizes its input
    "rwkv": ([1, 3], "computes other values"),
    # the model keeps the parts of all layers in separate lists
    "xlm": ([0, 3], "several lists"),
    # the decay of a linear attention depends on the number of layers
    "minimax": ([0, 3], "num_hidden_layers"),
}
_ODD: dict[str, dict[str, Any]] = {
    "jamba": {
        **_GROUPED,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "num_experts": 2,
    },
    "rwkv": {"context_length": 64},
    "minimax": {**_GROUPED, **_EXPERTS, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"] * 2},
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_cannot_be_kept(name):
    layers, why = REFUSED[name]
    with pytest.raises(RecipeError, match=why) as caught:
        from_layers(teacher_of(name, **_ODD.get(name, {})), layers)
    assert "cannot be kept" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
