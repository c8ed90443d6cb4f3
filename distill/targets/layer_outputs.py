"""Reads the outputs of some layers of a causal language model, in the same pass as the input of its output layer.

    outputs, layers = see(model, head, prompts, completions, depths=[9, 19])     # layers[row][0]: (n, D) after layer 9

Forward hooks append the outputs of modules to the last hidden state. `completion_logits` then selects positions of the
concatenated tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel

from distill.output_layer import Body, Head
from synthgen.errors import RecipeError
from synthgen.lm.forward import GivesLogits, completion_logits

NO_HEAD = Head(torch.zeros(0))
"""A placeholder for the output layer of a model. The placeholder is used when the logits are not needed, so that they
are not computed.
"""


def see(
    model: PreTrainedModel,
    head: Head | None,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    depths: Sequence[int],
    attention: int | None = None,
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Return (inputs of the output layer, outputs of layers), both as lists with one entry for each row.

    The first list has the inputs of the output layer at the positions that predict the n completion tokens, or the
    logits when `head` is None. The second list has the hidden states (n, D) after each layer of `depths`, at the same
    positions. With `attention`, the second list is for all positions of the sequence that predict a token, and each row
    also has the queries, keys and values of the layer `attention`.
    """
    layers = layers_of(model)
    modules, widths = [layers[i] for i in depths], [model.config.get_text_config().hidden_size] * len(depths)
    if attention is not None:
        parts, sizes = attention_parts(layers[attention])
        modules, widths = [*modules, *parts], [*widths, *sizes]
        whole = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        begins, rests = [row[:1] for row in whole], [row[1:] for row in whole]
        rows = completion_logits(_Watched(model, head, modules), begins, rests)
    else:
        share = not torch.is_grad_enabled()
        rows = completion_logits(_Watched(model, head, modules), prompts, completions, share=share)
    width = sum(widths)
    outputs = [row[-len(c) :, :-width] for row, c in zip(rows, completions, strict=True)]
    return outputs, [list(row[:, -width:].split(widths, -1)) for row in rows]


class _Watched:
    """A model that appends the outputs of `modules` to its logits, so that `completion_logits` selects the same
    positions of logits and outputs.
    """

    def __init__(self, model: PreTrainedModel, head: Head | None, modules: Sequence[nn.Module]) -> None:
        self.inner: GivesLogits = Body(model) if head else model
        self.modules, self.width = modules, 0
        self.device: torch.device = model.device
        self.config: PreTrainedConfig = model.config

    def get_decoder(self) -> Callable[..., SimpleNamespace]:
        return self._decode

    def _decode(self, ids: Tensor, **inputs: object) -> SimpleNamespace:
        with watching(self.modules) as seen:
            last = self.inner.get_decoder()(ids, **inputs).last_hidden_state
        self.width = last.shape[-1]
        return SimpleNamespace(last_hidden_state=torch.cat([last, *seen], -1))

    def get_output_embeddings(self) -> Callable[[Tensor], Tensor]:
        layer = self.inner.get_output_embeddings()
        return lambda h: torch.cat([layer(h[..., : self.width]), h[..., self.width :]], -1)

    def __call__(self, ids: Tensor, *, logits_to_keep: int = 0, **inputs: object) -> SimpleNamespace:
        with watching(self.modules) as seen:
            z = self.inner(ids, logits_to_keep=logits_to_keep, **inputs).logits
        return SimpleNamespace(logits=torch.cat([z, *(s[:, -logits_to_keep:] for s in seen)], -1))


@contextmanager
def watching(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Yield a list. After each forward pass of the model, the list holds the output of each module in this pass."""
    seen = [torch.zeros(0)] * len(modules)

    def watch(place: int, module: nn.Module) -> RemovableHandle:
        def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            seen[place] = output[0] if isinstance(output, tuple) else output

        return module.register_forward_hook(keep)

    handles = [watch(n, module) for n, module in enumerate(modules)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: PreTrainedModel) -> Sequence[nn.Module]:
    """The layers of a decoder. Raises RecipeError when the model has no attribute `layers` or `h`."""
    body = model.get_decoder()
    for name in ("layers", "h"):
        if hasattr(body, name):
            return list(getattr(body, name))
    raise RecipeError(
        f"synthgen cannot find the list of layers of {type(model).__name__} models, which train.hidden and "
        "train.relations need",
        "leave these sections out",
    )


def attention_parts(layer: nn.Module) -> tuple[list[nn.Module], list[int]]:
    """Return (modules, widths) of one layer. The concatenated outputs of the modules are queries, keys and values.

    Raises RecipeError when the layer has no separate queries, keys and values.
    """
    attention = getattr(layer, "self_attn", None) or getattr(layer, "attn", None)
    if attention is not None and hasattr(attention, "q_proj"):
        modules = [attention.q_proj, attention.k_proj, attention.v_proj]
        return modules, [int(module.out_features) for module in modules]
    if attention is not None and hasattr(attention, "c_attn"):
        return [attention.c_attn], [int(attention.c_attn.nf) // 3] * 3
    raise RecipeError(
        f"{type(attention).__name__} has no separate queries, keys and values, which train.relations needs",
        "leave train.relations out",
    )
