"""Checks that a student can read the rows before it is trained on them: enough positions, and a large enough table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.streaming.mapped import Mapped
from distill.streaming.stream import Stream
from synthgen.errors import RecipeError


def check_rows(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Any]) -> None:
    """Raise RecipeError, which names the row, when the model cannot read one of `rows`.

    `model` must be on the CPU, because a failed lookup on a GPU would make the GPU unusable for this process. Rows are
    read one by one only when `tokenizer` has tokens that the model's table lacks.
    """
    table = rows_of_table(model)
    if table is not None and rows and max(tokenizer.get_vocab().values()) >= table:
        check_ids(_read(rows), table, tokenizer)
    config = getattr(model, "config", None)
    if rows and config is not None and not config.is_encoder_decoder and hasattr(rows[0], "completion"):
        row, length = longest(rows)
        check_length(model, length - 1, f"row {row} has {length} tokens")  # the model does not read the last token


def rows_of_table(model: nn.Module) -> int | None:
    """The number of tokens in the model's embedding table. None when the model has no such table."""
    inner: Any = model if hasattr(model, "get_input_embeddings") else getattr(model, "model", None)
    table = getattr(inner.get_input_embeddings(), "weight", None) if hasattr(inner, "get_input_embeddings") else None
    return None if table is None else len(table)


def check_length(model: nn.Module, length: int, what: str) -> None:
    """Raise RecipeError when a decoder cannot read `length` tokens. `what` is the beginning of the error's message, and
    says which row has `length` tokens.

    A model with a table of positions cannot read more tokens than its config states. Most models without such a table
    can read more tokens.
    """
    room = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(room, int) or length <= room:
        return
    try:
        with torch.no_grad():
            body: Any = getattr(model, "base_model", model)
            body(torch.zeros(1, length, dtype=torch.long, device=model.device), use_cache=False)
    except (IndexError, RuntimeError, ValueError):
        raise RecipeError(
            f"{what}, but the student has only {room} positions",
            "lower train.max_length, which leaves out such rows, or train a student with more positions",
        ) from None


def longest(rows: Sequence[Any]) -> tuple[str, int]:
    """(id, length) of the row with the most tokens in prompt and completion together."""
    stream = rows.stream if isinstance(rows, Mapped) else rows
    if isinstance(stream, Stream):
        return stream.longest_row()
    row = max(stream, key=lambda row: len(row.prompt) + len(row.completion))
    return str(row.id), len(row.prompt) + len(row.completion)


def _read(rows: Sequence[Any]) -> Iterable[Any]:
    return rows.without_targets() if isinstance(rows, Stream) else rows


def check_ids(rows: Iterable[Any], table: int | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise RecipeError when a row has a token id of `table` or more; `table` is the number of rows of the embedding
    table.
    """
    if table is None:
        return
    for row in rows:
        largest = max((max(ids) for part in _PARTS if (ids := getattr(row, part, ()))), default=0)
        if largest >= table:
            word = tokenizer.convert_ids_to_tokens(largest) if largest < len(tokenizer) else None
            token = f"the token {word!r} (id {largest})" if word else f"the token id {largest}"
            raise RecipeError(
                f"{_name(row)} has {token}, but the student's embedding table has only {table} rows",
                "use a student whose table has a row for each token of the teacher, or leave out such rows",
            )


_PARTS = ("ids", "prompt", "completion")


def _name(row: Any) -> str:
    return f"row {row.id}" if hasattr(row, "id") else "a row"
