"""What some layers of a causal model gave, beside what its output layer takes: one pass, packed like any other.

    outputs, inside = see(model, head, prompts, completions, depths=[9, 19])     # inside[row][0]: (n, D) after layer 9

Hooks put what a module gave behind the last hidden state, and the one place that picks positions picks both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from distill.output_layer import Body, Head
from synthgen.errors import RecipeError
from synthgen.lm.forward import completion_logits

NO_HEAD = Head(torch.zeros(0))
"""For a model of which only what is inside is wanted: its logits are not made."""


def see(
    model: Any,
    head: Head | None,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    depths: Sequence[int],
    attention: int | None = None,
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """For each row: what the output layer takes for completion tokens (logits without a head); and what layers gave.

    That is (n, D) states after layers `depths`, then queries, keys and values of layer `attention`, of whole sequences
    if those are wanted, else of the positions that predict completion tokens.
    """
    layers = layers_of(model)
    modules, widths = [layers[i] for i in depths], [model.config.get_text_config().hidden_size] * len(depths)
    if attention is not None:
        some, sizes = attention_parts(layers[attention])
        modules, widths = [*modules, *some], [*widths, *sizes]
        whole = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        begins, rests = [row[:1] for row in whole], [row[1:] for row in whole]
        found = completion_logits(_Watched(model, head, modules), begins, rests)
    else:
        share = not torch.is_grad_enabled()
        found = completion_logits(_Watched(model, head, modules), prompts, completions, share=share)
    width = sum(widths)
    outputs = [row[-len(c) :, :-width] for row, c in zip(found, completions, strict=True)]
    return outputs, [list(row[:, -width:].split(widths, -1)) for row in found]


class _Watched:
    """A model whose logits are followed by what the modules gave: `completion_logits` picks positions out of both."""

    def __init__(self, model: Any, head: Head | None, modules: Sequence[nn.Module]) -> None:
        self.inner: Any = Body(model) if head else model
        self.modules, self.device, self.config, self.width = modules, model.device, model.config, 0

    def get_decoder(self) -> Any:
        return self._decode

    def _decode(self, *some: Any, **more: Any) -> SimpleNamespace:
        with watching(self.modules) as seen:
            last = self.inner.get_decoder()(*some, **more).last_hidden_state
        self.width = last.shape[-1]
        return SimpleNamespace(last_hidden_state=torch.cat([last, *seen], -1))

    def get_output_embeddings(self) -> Any:
        layer = self.inner.get_output_embeddings()
        return lambda h: torch.cat([layer(h[..., : self.width]), h[..., self.width :]], -1)

    def __call__(self, ids: Tensor, *, logits_to_keep: int = 0, **more: Any) -> SimpleNamespace:
        with watching(self.modules) as seen:
            z = self.inner(ids, logits_to_keep=logits_to_keep, **more).logits
        return SimpleNamespace(logits=torch.cat([z, *(s[:, -logits_to_keep:] for s in seen)], -1))


@contextmanager
def watching(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that holds each module's output once the model has run."""
    seen: list[Any] = [None] * len(modules)

    def keep(place: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen[place] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(keep(n)) for n, module in enumerate(modules)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: Any) -> Sequence[nn.Module]:
    """A decoder's layers. Raises RecipeError for one whose layers are not where they usually are."""
    body = model.get_decoder()
    for name in ("layers", "h"):
        if hasattr(body, name):
            return list(getattr(body, name))
    raise RecipeError(
        f"{type(model).__name__} models keep their layers elsewhere than others: train.hidden and train.relations "
        "cannot see them",
        "leave these sections out",
    )


def attention_parts(layer: nn.Module) -> tuple[list[nn.Module], list[int]]:
    """The modules of one layer whose outputs, side by side, are queries, keys and values; and the three widths."""
    attention: Any = getattr(layer, "self_attn", None) or getattr(layer, "attn", None)
    if hasattr(attention, "q_proj"):
        modules = [attention.q_proj, attention.k_proj, attention.v_proj]
        return modules, [int(module.out_features) for module in modules]
    if hasattr(attention, "c_attn"):
        return [attention.c_attn], [int(attention.c_attn.nf) // 3] * 3
    raise RecipeError(
        f"{type(attention).__name__} has no separate queries, keys and values: train.relations cannot see them",
        "leave it out",
    )
