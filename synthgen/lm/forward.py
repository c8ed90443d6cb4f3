"""Computes the logits of given completions in forward passes over prompts and completions (teacher forcing).

Rows are packed end to end into bins under a block-diagonal causal mask. The common beginning of all prompts is in each
bin only once. The output layer runs only on completion positions. Packing needs full softmax attention and an output
layer whose logits are not scaled or capped. For other models, rows are padded instead, which gives the same logits. In
an encoder-decoder model, the encoder reads the prompt, and the decoder reads its start token and the completion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from synthgen.lm import prefix


class GivesLogits(Protocol):
    """The methods and attributes of a model that this module uses. Language models of transformers have these methods
    and attributes.
    """

    @property
    def config(self) -> PreTrainedConfig: ...

    @property
    def device(self) -> torch.device: ...

    def get_decoder(self) -> Callable[..., ModelOutput]: ...

    def get_output_embeddings(self) -> Callable[[Tensor], Tensor]: ...

    def __call__(self, *args: Any, **inputs: Any) -> ModelOutput: ...


# The size S of a bin in tokens, without the tokens that all rows share. If a row is longer, all bins of its batch have
# the size of the longest row. S is large enough for efficient matrix products, and small enough for cheap attention
# over S × S pairs of tokens.
_BIN = 256
# The maximum number of completion tokens whose logits are in memory together. With a vocabulary of 50,000, these logits
# take 100 MB in float32.
_BATCH_TOKENS = 512
_SCALED_OUTPUT = ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_scale", "output_multiplier_scale")


def completion_logits(
    model: GivesLogits, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, share: bool = False
) -> list[Tensor]:
    """The logits that predict each row's completion: one (T, V) tensor for each row. Row t of the tensor predicts
    completion[t].

    Gradients flow through the logits. With `share`, the common prefix of all prompts is computed only once, unless the
    model's attention is of a kind that `synthgen.lm.prefix` does not support. Raises ValueError when a prompt of a
    decoder-only model has no tokens, because nothing would predict the first token of its completion.
    """
    if model.config.is_encoder_decoder:
        return _encoded(model, prompts, completions)
    if not all(map(len, prompts)):
        raise ValueError("a prompt has no tokens, so nothing predicts the first token of its completion")
    if not packs(model):
        return _padded(model, prompts, completions)
    distinct = list(dict.fromkeys(tuple(p) for p in prompts))
    shared, inputs = prefix.of_prompts(model, distinct) if share else (0, {})
    return _packed(model, [p[shared:] for p in prompts], completions, shared, inputs)


def packs(model: GivesLogits) -> bool:
    """Whether rows may be packed. The attention must be plain (see `prefix.plain`), and the logits must be the output
    layer's result without scaling or capping.
    """
    config = model.config.get_text_config()
    return prefix.plain(model) and not any(getattr(config, name, None) for name in _SCALED_OUTPUT)


def bins(lengths: Sequence[int]) -> list[list[int]]:
    """Pack rows into as few bins as first-fit decreasing needs. Returns the indices of the rows in each bin. A bin has
    room for `_BIN` tokens, or for the tokens of the longest row if these are more.

    All bins are padded to the width of the fullest bin, so the rows are then spread evenly. Each row, the longest
    first, goes to the bin with the fewest tokens (Graham 1969, "Bounds on multiprocessing timing anomalies"). If this
    does not leave the fullest bin with fewer tokens, the first packing is kept.
    """
    room = max(_BIN, *lengths)
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    filled: list[list[int]] = []
    free: list[int] = []
    for row in longest_first:
        place = next((b for b, left in enumerate(free) if left >= lengths[row]), None)
        if place is None:
            place = len(filled)
            filled.append([])
            free.append(room)
        filled[place].append(row)
        free[place] -= lengths[row]
    even: list[list[int]] = [[] for _ in filled]
    used = [0] * len(filled)
    for row in longest_first:
        place = used.index(min(used))
        even[place].append(row)
        used[place] += lengths[row]
    return even if max(used) < room - min(free) else filled


def batches(
    order: Sequence[int], lengths: Sequence[int], most: int, most_tokens: int = _BATCH_TOKENS
) -> Iterator[list[int]]:
    """Cut `order`, a list of row indices, into batches of at most `most` rows and at most `most_tokens` tokens. A row
    with more than `most_tokens` tokens is a batch of its own.
    """
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == most or sum(lengths[j] for j in batch) + lengths[i] > most_tokens):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@dataclass(frozen=True)
class _Pack:
    """R rows in B bins of S tokens: the arguments of a forward pass. For each row, `begin_R` is the index of the first
    shared token in the row's bin, and `start_R` is the index of the row's first own token. `begin_R` and `start_R`
    count in the flat sequence of all B·S tokens.
    """

    ids_BS: Tensor
    positions_BS: Tensor
    mask_BSS: Tensor
    begin_R: list[int]
    start_R: list[int]


def _pack(begin: Sequence[int], rows: Sequence[Sequence[int]], before: int, device: torch.device) -> _Pack:
    """Put the rows into bins. Every bin starts with the tokens `begin`, which precede each row and are computed once
    for all rows of the bin. `before` is the number of tokens that were computed in an earlier pass.
    """
    packed, shared = bins([len(row) for row in rows]), len(begin)
    width = shared + max(sum(len(rows[r]) for r in members) for members in packed)
    # These index arrays are built in numpy and copied to the device in one transfer. Building and copying must be fast,
    # because a GPU waits for the index arrays in each pass.
    host = np.zeros((3, len(packed), width), np.int64)
    ids, positions, owners = host  # token ids; positions in rows; owners: r + 1 is row r, 0 is padding, −1 is `begin`
    ids[:, :shared], owners[:, :shared] = begin, -1
    positions[:, :shared] = np.arange(before, before + shared)
    begins, starts = [0] * len(rows), [0] * len(rows)
    for b, members in enumerate(packed):
        start = shared
        for r in members:
            stop = start + len(rows[r])
            ids[b, start:stop] = rows[r]
            positions[b, start:stop] = np.arange(before + shared, before + shared + stop - start)
            owners[b, start:stop] = r + 1
            begins[r], starts[r] = b * width, b * width + start
            start = stop
    ids_BS, positions_BS, owners_BS = torch.from_numpy(host).to(device)
    # A token attends to `begin`, to itself, and to earlier tokens of the same row. Padding attends to padding, because
    # a query without keys gives NaN. The mask is built on the device, because it is far larger than the index arrays.
    before_SS = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    own_BSS = owners_BS[:, :, None] == owners_BS[:, None, :]
    return _Pack(ids_BS, positions_BS, (own_BSS | (owners_BS[:, None, :] == -1)) & before_SS, begins, starts)


def _packed(
    model: GivesLogits,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    before: int,
    inputs: dict[str, prefix.Prefix],
) -> list[Tensor]:
    begin = list(prompts[0][: prefix.common([tuple(p) for p in prompts])])
    # The last token of each row is left out, because the logits that follow it are not needed.
    rows = [[*p[len(begin) :], *c][:-1] for p, c in zip(prompts, completions, strict=True)]
    pack = _pack(begin, rows, before, model.device)
    # per row: flat indices of the positions that predict the completion
    wanted = [
        np.arange(start + len(prompt) - len(begin) - 1, start + len(row))
        for start, prompt, row in zip(pack.start_R, prompts, rows, strict=True)
    ]
    hidden_BSD = model.get_decoder()(
        pack.ids_BS, attention_mask=pack.mask_BSS[:, None], position_ids=pack.positions_BS, use_cache=False, **inputs
    ).last_hidden_state
    hidden_ND = hidden_BSD.flatten(0, 1)[torch.from_numpy(np.concatenate(wanted)).to(model.device)]
    return list(model.get_output_embeddings()(hidden_ND).split([len(c) for c in completions]))


def prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], before: int, inputs: dict[str, prefix.Prefix]
) -> tuple[DynamicCache, Tensor, Tensor]:
    """Run a model on U prompts, so that their completions can be written afterwards. The model must allow packed rows
    (see `packs`). Returns the cache with the prompts' keys and values, padded on the left; the mask (U, T), which is 0
    for padding; and the logits (U, V) that follow the prompts.

    `before` is the number of tokens of a prefix that was computed earlier, and `inputs` are the prefix's keys and
    values.
    """
    device, cache = model.device, DynamicCache(config=model.config)
    begin = list(prompts[0][: prefix.common([tuple(p) for p in prompts])])
    pack = _pack(begin, [p[len(begin) :] for p in prompts], before, device)
    hidden_BSD = model.get_decoder()(
        pack.ids_BS,
        attention_mask=pack.mask_BSS[:, None],
        position_ids=pack.positions_BS,
        past_key_values=cache,
        use_cache=True,
        **inputs,
    ).last_hidden_state
    longest = max(map(len, prompts))
    place, mask = np.zeros((2, len(prompts), longest), np.int64)  # flat index of each token; padding has index 0
    for row, prompt in enumerate(prompts):
        first, own = longest - len(prompt), longest - len(prompt) + len(begin)
        place[row, first:own] = np.arange(pack.begin_R[row], pack.begin_R[row] + len(begin))
        place[row, own:] = np.arange(pack.start_R[row], pack.start_R[row] + longest - own)
        mask[row, first:] = 1
    place_UT, mask_UT = torch.from_numpy(np.stack([place, mask])).to(device)
    for layer in cache.layers:
        layer.keys, layer.values = (
            part.transpose(1, 2).flatten(0, 1)[place_UT].transpose(1, 2) for part in (layer.keys, layer.values)
        )
    return cache, mask_UT, model.get_output_embeddings()(hidden_BSD.flatten(0, 1)[place_UT[:, -1]])


def _padded(model: GivesLogits, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[Tensor]:
    """The logits from a padded batch. Prompts are padded on the left and completions on the right, so that all
    completions begin in the same column.
    """
    left, right = max(map(len, prompts)), max(map(len, completions))
    ids = torch.zeros((len(prompts), left + right), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, left - len(prompt) : left + len(completion)] = torch.tensor([*prompt, *completion])
        mask[row, left - len(prompt) : left + len(completion)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    z_BTV = model(
        ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, :-1],
        logits_to_keep=right,
        use_cache=False,
    ).logits
    return [z_TV[: len(completion)] for z_TV, completion in zip(z_BTV, completions, strict=True)]


def _encoded(
    model: GivesLogits, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[Tensor]:
    """The logits of an encoder-decoder model. Prompts and completions are padded on the right. The decoder reads the
    start token and all tokens of the completion except the last.
    """
    shifted = [[model.config.decoder_start_token_id, *completion[:-1]] for completion in completions]
    ids, mask = _right(prompts, model.device)
    z_BTV = model(ids, attention_mask=mask, decoder_input_ids=_right(shifted, model.device)[0], use_cache=False).logits
    return [z_TV[: len(completion)] for z_TV, completion in zip(z_BTV, completions, strict=True)]


def _right(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T), padded on the right with id 0. The mask hides the padding from the encoder. In the causal
    decoder, padding comes after the row's tokens and cannot affect them.
    """
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids.to(device), mask.to(device)
