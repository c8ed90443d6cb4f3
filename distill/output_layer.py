"""From a model's last hidden states to its loss, a chunk of tokens at a time.

    head = output_head(model)                         # checked against the model's own logits
    loss, values_N = through_head(
        hidden_ND, head, lambda z_CV, chunk: divergence(z_CV, cut(target, *chunk), "jsd"), weights_N
    )

The logits of all tokens are never in memory: each chunk's are made, reduced to values and a gradient, and dropped.
Since the loss is a sum with weights that are known beforehand, the gradient is made in the forward pass, from the
same logits (making them again in the backward pass costs a third more). A live teacher takes the same way:
`Dense(logits_of(teacher_hidden_ND[slice(*chunk)], teacher_head))` inside the function.
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

from synthgen.lm.forward import completion_logits

# Logits at once: 32 MiB in float32, below which matrix products are slow; on a GPU 256 MiB, below which it waits for
# the host to start the next kernel.
_CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 26}

Tokenwise = Callable[[Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Head:
    """The output layer: logits = cap · tanh(scale · (W h + b) / cap), without the cap where it is None."""

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None


def logits_of(hidden_ND: Tensor, head: Head) -> Tensor:
    """Logits (N, V) in the model's own type."""
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
    """Σ weights · values, and the values without gradient, for values (N,) or (N, P) and weights of the same shape.

    `tokenwise(z_CV, (begin, end))` makes the values of one chunk of tokens, each token by itself. `states_ND` are
    hidden states; without a head they are the logits themselves. `chunk` is in tokens, `chunk_of` them without it.
    Gradients reach the states and whatever of the output layer wants them; they can be taken once.
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
    """Tokens at once on a type of device."""
    return max(1, _CHUNK_ELEMENTS.get(device, _CHUNK_ELEMENTS["cpu"]) // vocabulary)


@dataclass(frozen=True)
class _Plan:
    """What `through_head` is to do: the values and their weights, tokens at once, and whether gradients are wanted."""

    head: Head | None
    tokenwise: Tokenwise
    weights: Tensor
    size: int
    wanted: bool


class _ThroughHead(torch.autograd.Function):
    """Gradients are summed over the chunks in float32 at least."""

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
            raise RuntimeError("the gradient of through_head can be taken once")
        scaled = [grad if grad is None else grad.mul_(grads[0]) for grad in ctx.grads]
        ctx.grads = None
        return *scaled, None


def _add(grads: Sequence[Tensor | None], dz: Tensor, h: Tensor, weight: Tensor | None, rows: slice) -> None:
    """One chunk's share of the gradients of states, weight and bias."""
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
    """The output layer of a language model, with what its config says is done to the logits after it.

    It is checked: logits made with it must be the model's own. Otherwise something unknown is done to them, and a loss
    from hidden states would teach another model. The answer is then None, and the model is trained on whole logits.
    """
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = 1.0
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier", "logits_scaling"):
        value = getattr(config, name, None)
        if value is not None:  # Granite divides by what HyperCLOVA X multiplies with
            scale *= 1 / value if name == "logits_scaling" and config.model_type.startswith("granite") else value
    bias = getattr(layer, "bias", None)
    scales = [scale]
    if config.is_encoder_decoder:
        scales.append(scale * config.hidden_size**-0.5)  # T5 with one table for input and output
        bias = model.final_logits_bias[0] if bias is None and hasattr(model, "final_logits_bias") else bias
    ids = torch.arange(4, device=model.device)[None] + 1
    inputs = {"decoder_input_ids": ids} if config.is_encoder_decoder else {}
    training = model.training
    model.eval()
    with torch.inference_mode():
        expected = model(ids, use_cache=False, **inputs).logits[0].float()
        states = Body(model)(ids, use_cache=False, **inputs).logits[0]
        softcap = getattr(config, "final_logit_softcapping", None)
        heads = [Head(layer.weight, bias, scale, softcap) for scale in scales]
        tried = [logits_of(states, head).float() for head in heads]
    model.train(training)
    if tried[0].shape != expected.shape:
        return None
    nearest, head = min(zip(tried, heads, strict=True), key=lambda pair: float((pair[0] - expected).abs().max()))
    return head if torch.allclose(nearest, expected, atol=1e-3, rtol=1e-2) else None


def completion_states(
    model: PreTrainedModel, head: Head | None, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> Tensor:
    """What `through_head` takes, row after row of the batch: (N, D) last hidden states, or (N, V) logits without a
    head. State n predicts completion token n; prompts and padding are left out. Gradients flow."""
    return torch.cat(completion_logits(Body(model) if head else model, prompts, completions))


class Body:
    """A model without its output layer, whose hidden states stand where the logits would."""

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
        """(B, T, D): what the decoder makes of what the encoder read."""
        read_BSD = self.model.get_encoder()(ids_BS, attention_mask=attention_mask).last_hidden_state
        hidden: Tensor = self.model.get_decoder()(
            decoder_input_ids,
            encoder_hidden_states=read_BSD,
            encoder_attention_mask=attention_mask,
            use_cache=use_cache,
        ).last_hidden_state
        return hidden
