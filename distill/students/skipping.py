"""Runs a model with only some of its layers, in any order, without changing the model.

The model is first run unchanged, and the arguments of each layer, such as masks and positions, are recorded. Then the
model is run again. In place of the first layer, the wanted layers run one after another, each with its recorded
arguments. All other layers return their input unchanged. Each wanted layer therefore computes the same function as in
the whole model, but from other hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Run = Callable[[], Tensor]


def without_other_layers(model: PreTrainedModel, path: str, layers: Sequence[int], run: Run) -> Tensor | None:
    """The result of the function `run`, which calls `model`, as if `model` had only the layers numbered `layers`.
    `path` names the list of all layers.

    Computes in float32, one layer at a time, whatever the model's dtype is. As a test, all layers are also run in this
    way. If the test does not give the model's own result, the model does more than run one layer after another, and
    None is returned.
    """
    stack = list(model.get_submodule(path).children())
    chain = _Chain(stack)
    with _in_float32(model, but=stack):
        whole = chain.recorded(run)
        if not chain.complete:
            return None
        again = chain.of(range(len(stack)), run)
        if not torch.allclose(again, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max())):
            return None
        return whole if list(layers) == list(range(len(stack))) else chain.of(layers, run)


class _Chain:
    """The layers of a model, with the arguments and the result of each layer in one forward pass."""

    def __init__(self, stack: Sequence[nn.Module]) -> None:
        self.stack = stack
        self.calls: dict[int, tuple[tuple[Any, ...], dict[str, Any], Any]] = {}

    @property
    def complete(self) -> bool:
        """Whether each layer was called once, with hidden states as its first argument."""
        return len(self.calls) == len(self.stack) and all(
            isinstance(_hidden(args, named), Tensor) for args, named, _ in self.calls.values()
        )

    def recorded(self, run: Run) -> Tensor:
        """The result of `run` with all layers. Records the arguments and results of the layers."""

        def record(number: int) -> Callable[..., Any]:
            forward = self.stack[number].forward

            def call(*args: Any, **named: Any) -> Any:
                with _in_float32(self.stack[number]):
                    result = forward(*args, **named)
                self.calls[number] = (args, named, result)
                return result

            return call

        with _replaced(self.stack, [record(number) for number in range(len(self.stack))]):
            return run()

    def of(self, layers: Sequence[int], run: Run) -> Tensor:
        """The result of `run` with only these layers, in this order."""
        forwards = [layer.forward for layer in self.stack]

        def chain(*args: Any, **named: Any) -> Any:
            hidden = _hidden(args, named)
            for number in layers:
                own, own_named, _ = self.calls[number]
                with _in_float32(self.stack[number]):
                    hidden = _first(forwards[number](*_with(own, hidden), **_with_named(own, own_named, hidden)))
            return self._like_result(0, hidden)

        def skip(number: int) -> Callable[..., Any]:
            return lambda *args, **named: self._like_result(number, _hidden(args, named))

        with _replaced(self.stack, [chain, *(skip(number) for number in range(1, len(self.stack)))]):
            return run()

    def _like_result(self, number: int, hidden: Any) -> Any:
        """The recorded result of a layer, with its hidden states replaced by `hidden`."""
        result = self.calls[number][2]
        if isinstance(result, dict):
            return {**result, next(iter(result)): hidden}
        return (hidden, *result[1:]) if isinstance(result, tuple | list) else hidden


def _hidden(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return args[0] if args else named.get("hidden_states")


def _first(result: Any) -> Any:
    if isinstance(result, dict):
        return next(iter(result.values()))
    return result[0] if isinstance(result, tuple | list) else result


def _with(args: tuple[Any, ...], hidden: Any) -> tuple[Any, ...]:
    return (hidden, *args[1:]) if args else ()


def _with_named(args: tuple[Any, ...], named: dict[str, Any], hidden: Any) -> dict[str, Any]:
    return named if args else {**named, "hidden_states": hidden}


@contextmanager
def _replaced(stack: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Replace the `forward` of each layer inside a `with` block."""
    try:
        for layer, forward in zip(stack, forwards, strict=True):
            layer.__dict__["forward"] = forward
        yield
    finally:
        for layer in stack:
            layer.__dict__.pop("forward", None)


@contextmanager
def _in_float32(module: nn.Module, but: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Convert a module's weights and buffers to float32 inside a `with` block, except those of the modules `but`."""
    skipped = {id(inner) for one in but for inner in one.modules()}
    with ExitStack() as undo:
        for inner in module.modules():
            if id(inner) in skipped:
                continue
            for parameter in inner.parameters(recurse=False):
                if parameter.is_floating_point() and parameter.dtype is not torch.float32:
                    undo.callback(setattr, parameter, "data", parameter.data)
                    parameter.data = parameter.data.float()
            for name, buffer in list(inner._buffers.items()):
                if buffer is not None and buffer.is_floating_point() and buffer.dtype is not torch.float32:
                    undo.callback(inner._buffers.__setitem__, name, buffer)
                    inner._buffers[name] = buffer.float()
        yield
