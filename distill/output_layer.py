"""Computes a loss from a model's last hidden states, one chunk of tokens at a time.

    head = output_head(model)                         # checked against the model's own logits
    loss, values_N = through_head(
        hidden_ND, head, lambda z_CV, chunk: divergence(z_CV, cut(target, *chunk), "jsd"), weights_N
    )

The logits of all tokens are never in memory together. The logits of a chunk are computed, reduced to values and a
gradient, and discarded. The loss is a sum of token values with weights that are known beforehand. The forward pass can
therefore also compute the gradient, from the same logits. Computing the logits again in the backward pass would cost a
third more time. The logits of a live teacher are computed in the same chunks, inside the function that computes the
values: `Dense(logits_of(teacher_hidden_ND[slice(*chunk)], teacher_head))`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel

from synthgen.lm.batched import check_padding
from synthgen.lm.forward import completion_logits

# Number of logits in a chunk. On a CPU, the logits of a chunk take 32 MiB in float32; smaller chunks make matrix
# products slow. On a GPU, the logits of a chunk take 256 MiB; with smaller chunks, the GPU waits for the host to start
# the next kernel.
_CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 26}

Tokenwise = Callable[[Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Head:
    """The output layer of a model: logits = cap · tanh(scale · (W h + b) / cap).

    When `softcap` is None, logits = scale · (W h + b).
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


def logits_of(hidden_ND: Tensor, head: Head) -> Tensor:
    """Return the logits (N, V) in the dtype of the model."""
    return _finish(functional.linear(hidden_ND, head.weight_VD, head.bias_V), head)


def _finish(z_NV: Tensor, head: Head | None) -> Tensor:
    if head is not None and head.scale != 1.0:
        z_NV = z_NV * head.scale
    if head is not None and head.softcap is not None:
        z_NV = torch.tanh(z_NV / head.softcap) * head.softcap
    return z_NV


def through_head(
    states_ND: Tensor, head: Head | None, tokenwise: Tokenwise, weights_N: Tensor, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return (Σ weights · values, values without gradient). Values and weights are (N,) or (N, P).

    `tokenwise(z_CV, (begin, end))` computes the values of one chunk of tokens. The value of a token must not depend on
    other tokens. `states_ND` are hidden states, or the logits themselves when `head` is None. `chunk` is the number of
    tokens in a chunk, by default the result of `chunk_of`. Gradients of the first result reach the states and the
    trainable weights of the output layer. The backward pass can run only once.
    """
    weight, bias = (head.weight_VD, head.bias_V) if head else (None, None)
    width = states_ND.shape[-1] if weight is None else len(weight)
    kind = states_ND.device.type
    size = chunk or chunk_of(width, kind)
    if weight is not None:
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        states_ND, weight = states_ND.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    plan = _Plan(head, tokenwise, weights_N, size, torch.is_grad_enabled())
    with torch.autocast(kind, enabled=False):
        total, values = _ThroughHead.apply(states_ND, weight, bias, plan)
    return total, values


def chunk_of(vocabulary: int, device: str) -> int:
    """The number of tokens in a chunk, for a device type such as "cuda"."""
    return max(1, _CHUNK_ELEMENTS.get(device, _CHUNK_ELEMENTS["cpu"]) // vocabulary)


@dataclass(frozen=True)
class _Plan:
    """Arguments of `_ThroughHead`. `size`: number of tokens in a chunk. `wanted`: whether gradients are computed."""

    head: Head | None
    tokenwise: Tokenwise
    weights: Tensor
    size: int
    wanted: bool


class _ThroughHead(torch.autograd.Function):
    """The autograd function of `through_head`. Gradients of the output layer are summed in at least float32."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor | None, bias: Tensor | None, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        grads = [
            torch.zeros_like(part, dtype=part.dtype if part is states else torch.promote_types(part.dtype, torch.float))
            if part is not None and plan.wanted and needed
            else None
            for part, needed in zip((states, weight, bias), ctx.needs_input_grad[:3], strict=True)
        ]
        values = []
        for a in range(0, max(len(states), 1), plan.size):
            h = states[a : a + plan.size]
            z = h.detach() if weight is None else functional.linear(h, weight, bias)
            with torch.set_grad_enabled(any(grad is not None for grad in grads)):
                z = z.requires_grad_(torch.is_grad_enabled())
                chunk = plan.tokenwise(_finish(z, plan.head), (a, a + len(h)))
            if chunk.requires_grad:
                (dz,) = torch.autograd.grad(chunk, z, plan.weights[a : a + plan.size].to(chunk.dtype))
                _add(grads, dz, h, weight, slice(a, a + plan.size))
            values.append(chunk.detach())
        ctx.grads = [g if g is None else g.to(p.dtype) for g, p in zip(grads, (states, weight, bias), strict=True)]
        out = torch.cat(values)
        ctx.mark_non_differentiable(out)
        return (out * plan.weights).sum(), out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("the gradient of through_head can be computed only once")
        scaled = [grad if grad is None else grad.mul_(grads[0]) for grad in ctx.grads]
        ctx.grads = None
        return *scaled, None


def _add(grads: Sequence[Tensor | None], dz: Tensor, h: Tensor, weight: Tensor | None, rows: slice) -> None:
    """Add the gradients of one chunk to the gradients of states, weight and bias, in place."""
    grad_states, grad_weight, grad_bias = grads
    if grad_states is not None and weight is None:
        grad_states[rows] = dz
    elif grad_states is not None:
        torch.mm(dz, weight, out=grad_states[rows])
    if grad_weight is not None and grad_weight.dtype == dz.dtype:
        grad_weight.addmm_(dz.T, h)
    elif grad_weight is not None:
        grad_weight += dz.T @ h
    if grad_bias is not None:
        grad_bias += dz.sum(0)


def output_head(model: PreTrainedModel) -> Head | None:
    """Return the output layer of a language model, with the scale and the cap that its config states.

    The function computes logits with this output layer and compares them with the model's own logits. If the two
    results differ, the model changes its logits in an unknown way, and a loss from hidden states would be wrong. The
    function then returns None, and training uses the logits of the whole model. The function also returns None when the
    output layer has an adapter, because the layer then computes more than its weight alone.

    Raises TeacherError when the model gives a text other logits in a batch than alone.
    """
    check_padding(model)
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    if layer is None or hasattr(layer, "base_layer"):
        return None
    scale = 1.0
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier", "logits_scaling"):
        value = getattr(config, name, None)
        if value is not None:  # Granite divides by `logits_scaling`, while HyperCLOVA X multiplies by it
            scale *= 1 / value if name == "logits_scaling" and config.model_type.startswith("granite") else value
    bias = getattr(layer, "bias", None)
    scales = [scale]
    if config.is_encoder_decoder:
        # T5 scales its states by this factor when input and output embeddings are tied
        scales.append(scale * config.hidden_size**-0.5)
        bias = model.final_logits_bias[0] if bias is None and hasattr(model, "final_logits_bias") else bias
    softcap = getattr(config, "final_logit_softcapping", None)
    heads = [Head(layer.weight, bias, scale, softcap) for scale in scales]
    training = model.training
    model.eval()
    with torch.inference_mode():
        found = _right_head(model, heads)
    model.train(training)
    return found


def _right_head(model: PreTrainedModel, heads: Sequence[Head]) -> Head | None:
    """The head that gives the model's own logits from its last hidden states. None when none of them does, or when the
    model has no hidden states that these heads can read.
    """
    ids = torch.arange(4, device=model.device)[None] + 1
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    expected = model(ids, use_cache=False, **inputs).logits[0].float()
    try:
        states = Body(model)(ids, use_cache=False, **inputs).logits[0]
        tried = [logits_of(states, head).float() for head in heads]
    except (AttributeError, TypeError, RuntimeError):  # Llama 4: the model is its own body; ELECTRA: other widths
        return None
    if tried[0].shape != expected.shape:
        return None
    nearest, head = min(zip(tried, heads, strict=True), key=lambda pair: float((pair[0] - expected).abs().max()))
    return head if torch.allclose(nearest, expected, atol=1e-3, rtol=1e-2) else None


def completion_states(
    model: PreTrainedModel, head: Head | None, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> Tensor:
    """Return the input of `through_head`: the last hidden states (N, D), or the logits (N, V) when `head` is None.

    The rows of the batch are concatenated. State n predicts completion token n. States of prompts and padding are left
    out. Gradients are tracked.
    """
    return torch.cat(completion_logits(Body(model) if head else model, prompts, completions))


class Body:
    """A model without its output layer. This model returns hidden states in place of logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.body = model, model.base_model
        self.device: torch.device = model.device
        self.config: PreTrainedConfig = model.config

    def get_decoder(self) -> PreTrainedModel:
        return self.body

    def get_output_embeddings(self) -> Callable[[Tensor], Tensor]:
        return lambda hidden: hidden

    def __call__(self, ids_BT: Tensor, *, logits_to_keep: int = 0, **inputs: Any) -> SimpleNamespace:
        if self.config.is_encoder_decoder:
            return SimpleNamespace(logits=self._decoded(ids_BT, **inputs))
        hidden_BTD = self.body(ids_BT, **inputs).last_hidden_state
        return SimpleNamespace(logits=hidden_BTD[:, -logits_to_keep:])

    def _decoded(
        self, ids_BS: Tensor, decoder_input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False
    ) -> Tensor:
        """Run encoder and decoder. Returns the decoder's hidden states (B, T, D)."""
        read_BSD = self.model.get_encoder()(ids_BS, attention_mask=attention_mask).last_hidden_state
        hidden: Tensor = self.model.get_decoder()(
            decoder_input_ids,
            encoder_hidden_states=read_BSD,
            encoder_attention_mask=attention_mask,
            use_cache=use_cache,
        ).last_hidden_state
        return hidden
