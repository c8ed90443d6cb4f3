"""Quantizes weights to eight bits with GPTQ, in blocks of 32 values that share a scale.

    found = quantize(model, rows)         # {"model.layers.0.mlp.up_proj": Int8(values_NK, scales_NB), …}

llama.cpp's q8_0 and ONNX Runtime's MatMulNBits use the same grid (symmetric, block 32), so both formats store the same
int8 values and scales. GPTQ (Frantar et al. 2022, https://arxiv.org/abs/2210.17323, Algorithm 1) keeps the outputs of
the layers close to the original outputs. GPTQ compensates the rounding error of each column by changing the later
columns, weighted by the inputs of the layer.

The two likeliest tokens of a student that was trained only for seconds have similar probabilities. For such a student,
rounding to the nearest changes the likeliest token at one position in twenty. GPTQ changes the likeliest token at one
position in two hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK = 32
_DAMP = 0.01  # share of the Hessian's mean diagonal that is added to the diagonal, as in the paper


@dataclass(frozen=True)
class Int8:
    """A quantized weight: weight[n, k] ≈ scales[n, k // 32] · values[n, k].

    The values are int8 in [−127, 127], and the scales float16.
    """

    values_NK: Tensor
    scales_NB: Tensor

    def dequantized(self) -> Tensor:
        """Return the weight (N, K) in float32."""
        return (self.values_NK.float().unflatten(-1, (-1, BLOCK)) * self.scales_NB.float()[..., None]).flatten(-2)


@torch.no_grad()
def quantize(model: Any, rows: Sequence[Sequence[int]]) -> dict[str, Int8]:
    """Quantize every linear layer and embedding whose width is a multiple of `BLOCK`. Returns the quantized weights by
    module name.

    `rows` are lists of token ids, which the model reads. The inputs that a layer gets when the model reads `rows`
    determine how much each rounding error of the layer counts in GPTQ. Without rows, each value is rounded to the
    nearest multiple of its scale. If the embeddings are tied to the output layer, both get the same quantized weight.
    """
    hessians = _hessians(model, rows)
    found: dict[str, Int8] = {}
    tables: dict[int, Int8] = {}  # the key is the address of the weight, because modules may share a weight
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Embedding)]
    for name, module in sorted(layers, key=lambda layer: isinstance(layer[1], torch.nn.Embedding)):
        if module.weight.shape[1] % BLOCK == 0:
            key = module.weight.data_ptr()
            tables[key] = tables.get(key) or gptq(module.weight.float(), hessians.get(name))
            found[name] = tables[key]
    return found


def gptq(weight_NK: Tensor, hessian_KK: Tensor | None) -> Int8:
    """Quantize a weight so that its products with the inputs x change little. `hessian_KK` is Σ xxᵀ over the inputs.

    Without a Hessian, each value is rounded to the nearest multiple of its scale.
    """
    weight_KN = weight_NK.T.contiguous()
    upper_KK = None if hessian_KK is None else _inverse_factor(hessian_KK)
    values_KN = torch.empty_like(weight_KN, dtype=torch.int8)
    scales = []
    for begin in range(0, len(weight_KN), BLOCK):
        stop = begin + BLOCK
        block_kN = weight_KN[begin:stop].clone()
        scale_N = (block_kN.abs().amax(0) / 127).half()
        scale_N = scale_N.where(scale_N > 0, 1).float()
        error_kN = torch.zeros_like(block_kN)
        for k in range(BLOCK):
            rounded_N = (block_kN[k] / scale_N).round().clamp(-127, 127)
            values_KN[begin + k] = rounded_N.to(torch.int8)
            if upper_KK is not None:
                error_kN[k] = (block_kN[k] - rounded_N * scale_N) / upper_KK[begin + k, begin + k]
                block_kN[k + 1 :].addr_(upper_KK[begin + k, begin + k + 1 : stop], error_kN[k], alpha=-1)
        if upper_KK is not None:
            weight_KN[stop:] -= upper_KK[begin:stop, stop:].T @ error_kN
        scales.append(scale_N.half())
    return Int8(values_KN.T.contiguous(), torch.stack(scales, -1))


def _inverse_factor(hessian_KK: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of the damped Hessian."""
    damped_KK = hessian_KK.double()
    damped_KK = damped_KK + torch.eye(len(damped_KK)) * (_DAMP * damped_KK.diagonal().mean()).clamp(min=1e-12)
    inverse_KK = torch.cholesky_inverse(torch.linalg.cholesky(damped_KK))
    return torch.linalg.cholesky(inverse_KK, upper=True).float()


def _hessians(model: Any, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Compute Σ xxᵀ over the inputs x of each linear layer. Layers that read the same tensor share one matrix."""
    owners: dict[str, str] = {}
    sums: dict[str, Tensor] = {}
    last: list[tuple[str, Tensor]] = []

    def watch(name: str) -> Any:
        def see(module: Any, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0]
            if name not in owners:
                owners[name] = last[0][0] if last and last[0][1] is x else name
            last[:] = [(owners[name], x)]
            if owners[name] == name:
                x_SK = x.flatten(0, -2)
                sums[name] = sums.get(name, 0) + x_SK.T @ x_SK

        return see

    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linear]
    head = model.get_output_embeddings()
    try:
        for row in rows:
            if head is None:  # a classifier, whose head is one of the linear layers
                model(torch.tensor([list(row)]))
                continue
            states_1SD = model.get_decoder()(torch.tensor([list(row)]), use_cache=False).last_hidden_state
            for name, module in linear:
                if module is head:  # collect the layer's input without running the layer
                    watch(name)(module, (states_1SD,))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums[owner] for name, owner in owners.items()}
