"""Attention over a prefix that all rows of a batch share. The prefix's keys and values are stored once, not once for
each row.

Few-shot prompts begin with the same few hundred tokens. If the keys and values of these tokens were repeated for every
row, a decoding step would read gigabytes. In this module, every row attends to the one copy of the prefix and to its
own tokens, with one softmax over both. The result is the same up to rounding. Models whose attention has soft caps,
sliding windows or sinks are left unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

WORTH_SHARING = 16  # minimum number of tokens; for fewer tokens, the separate pass takes longer than sharing saves

_NAME = "synthgen_shared_prefix"
# The `model_type` of decoders that consist only of attention with rotary or absolute positions, a gated or plain MLP,
# and an output layer.
_PLAIN = {"llama", "mistral", "qwen2", "qwen3", "phi", "gpt2", "olmo", "olmo2", "starcoder2", "smollm3"}
Prefix = list[tuple[Tensor, Tensor]]  # for each layer: keys and values, both (1, kv heads, P, head size)


def plain(model: PreTrainedModel) -> bool:
    """Whether every layer has full softmax attention without caps, windows or sinks."""
    config = model.config.get_text_config()
    odd = ("attn_logit_softcapping", "sliding_window", "attention_chunk_size", "attention_sink")
    if model.config._attn_implementation not in ("sdpa", _NAME) or any(getattr(config, name, None) for name in odd):
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and config.model_type in _PLAIN


def enable(model: PreTrainedModel) -> bool:
    """Make the model's forward pass accept the argument `shared_prefix`. When the model's attention is not plain,
    leaves the model unchanged and returns False.
    """
    if not plain(model):
        return False
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)
    return True


def enabled(model: PreTrainedModel) -> bool:
    """Whether `enable` succeeded for this model."""
    return bool(model.config._attn_implementation == _NAME)


def common(prompts: Sequence[tuple[int, ...]]) -> int:
    """The length of the longest common prefix that leaves at least one further token in every prompt."""
    low, high = min(prompts), max(prompts)  # the common prefix of these two prompts is a prefix of all prompts
    count = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return min(count, min(len(p) for p in prompts) - 1)


def compute(model: PreTrainedModel, ids: list[int]) -> Prefix | None:
    """Compute the keys and values of a prefix. Returns None when a cache layer is not a `DynamicLayer`."""
    cache = DynamicCache(config=model.config)
    model(torch.tensor([ids], device=model.device), past_key_values=cache, logits_to_keep=1)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    return [(layer.keys, layer.values) for layer in cache.layers]


def of_prompts(model: PreTrainedModel, distinct: Sequence[tuple[int, ...]]) -> tuple[int, dict[str, Prefix]]:
    """Compute the keys and values of the common prefix of distinct prompts. Returns the prefix's length, and the
    keyword arguments that a forward pass over the remaining tokens needs. Returns (0, {}) when the prefix has fewer
    than `WORTH_SHARING` tokens or cannot be shared in this model.
    """
    shared = common(distinct) if enabled(model) and len(distinct) > 1 else 0
    kept = compute(model, list(distinct[0][:shared])) if shared >= WORTH_SHARING else None
    return (0, {}) if kept is None else (shared, {"shared_prefix": kept})


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    shared_prefix: Prefix | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """The attention function, which transformers calls in each layer. Each row attends to the shared prefix and to its
    own tokens. `query` is (B, heads, Q, d). `key` and `value` are (B, kv heads, S, d) and belong to the rows' own
    tokens. The result is (B, Q, heads, d).
    """
    if shared_prefix is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return out
    prefix_k, prefix_v = (part[0] for part in shared_prefix[module.layer_idx])  # (kv heads, P, d)
    rows, heads, steps, size = query.shape
    kv_heads, prefix_length = prefix_k.shape[:2]
    groups = heads // kv_heads
    query = query * (scaling if scaling is not None else size**-0.5)
    own_q = query.reshape(rows, kv_heads, groups * steps, size)
    shared_q = own_q.transpose(0, 1).reshape(kv_heads, rows * groups * steps, size)
    shared_s = (shared_q @ prefix_k.transpose(1, 2)).view(kv_heads, rows, groups * steps, prefix_length)
    own_s = own_q @ key.transpose(2, 3)
    own_s = own_s.view(rows, kv_heads, groups, steps, -1)
    if attention_mask is None and steps > 1:
        length = key.shape[2]
        attention_mask = torch.ones(steps, length, dtype=torch.bool, device=key.device).tril(length - steps)[None, None]
    if attention_mask is not None:
        own_s = own_s.masked_fill(~attention_mask[:, :, None], -torch.inf)
    own_s = own_s.view(rows, kv_heads, groups * steps, -1)
    p = torch.cat([shared_s.transpose(0, 1), own_s], -1).softmax(-1, dtype=torch.float32).to(query.dtype)
    shared_p = p[..., :prefix_length].transpose(0, 1).reshape(kv_heads, rows * groups * steps, prefix_length)
    result = (shared_p @ prefix_v).view(kv_heads, rows, groups * steps, size).transpose(0, 1)
    result = result + p[..., prefix_length:] @ value
    return result.reshape(rows, heads, steps, size).transpose(1, 2).contiguous(), None
