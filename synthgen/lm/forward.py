"""Teacher-forced passes: the logits of given completions.

Rows are packed end to end into bins under a block-diagonal causal mask, without padding tokens, and the output layer
runs on completion positions alone. Models whose attention or output layer is not plain get a padded batch instead: the
same values. Where an encoder reads the prompt, the decoder reads its start token and the completion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from synthgen.lm import prefix


class GivesLogits(Protocol):
    """What a pass needs of a model: a language model of transformers, or something that stands in for one."""

    @property
    def config(self) -> PreTrainedConfig: ...

    @property
    def device(self) -> torch.device: ...

    def get_decoder(self) -> Callable[..., ModelOutput]: ...

    def get_output_embeddings(self) -> Callable[[Tensor], Tensor]: ...

    def __call__(self, *args: Any, **inputs: Any) -> ModelOutput: ...


_BIN = 256  # tokens of a bin, when no row is longer: enough for the matrix products, little for the S × S attention
_BATCH_TOKENS = 512  # completion tokens whose logits are held at once: 100 MB for a vocabulary of 50,000
_SCALED_OUTPUT = ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_scale", "output_multiplier_scale")


def completion_logits(
    model: GivesLogits, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, share: bool = False
) -> list[Tensor]:
    """Logits of each row's completion positions, one (T, V) tensor for each row: entry t predicts completion[t].

    Gradients flow. `share`: tokens that all prompts begin with are computed once (without gradients). Raises ValueError
    for a prompt without tokens: nothing predicts the first token of its completion.
    """
    if model.config.is_encoder_decoder:
        return _encoded(model, prompts, completions)
    if not all(map(len, prompts)):
        raise ValueError("a prompt has no tokens: nothing predicts the first of its completion")
    if not _packs(model):
        return _padded(model, prompts, completions)
    distinct = list(dict.fromkeys(tuple(p) for p in prompts))
    shared, inputs = prefix.of_prompts(model, distinct) if share else (0, {})
    return _packed(model, [p[shared:] for p in prompts], completions, shared, inputs)


def _packs(model: GivesLogits) -> bool:
    """Whether rows may be packed: plain attention, and logits that are the output layer's own."""
    config = model.config.get_text_config()
    return prefix.plain(model) and not any(getattr(config, name, None) for name in _SCALED_OUTPUT)


def bins(lengths: Sequence[int]) -> list[list[int]]:
    """Rows for each bin, by first fit of the longest first; a bin holds `_BIN` tokens, or the longest row."""
    room = max(_BIN, *lengths)
    filled: list[list[int]] = []
    free: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b, left in enumerate(free) if left >= lengths[row]), None)
        if place is None:
            place = len(filled)
            filled.append([])
            free.append(room)
        filled[place].append(row)
        free[place] -= lengths[row]
    return filled


def batches(order: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """`order` cut where a batch would hold more than `most` rows or `_BATCH_TOKENS` tokens; one row always fits."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == most or sum(lengths[j] for j in batch) + lengths[i] > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _packed(
    model: GivesLogits,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    before: int,
    inputs: dict[str, prefix.Prefix],
) -> list[Tensor]:
    rows = [[*p, *c][:-1] for p, c in zip(prompts, completions, strict=True)]  # the last token predicts nothing kept
    packed = bins([len(row) for row in rows])
    width = max(sum(len(rows[r]) for r in members) for members in packed)
    # Numpy, and one copy to the device: this is the host's work of each pass, and a GPU waits for it.
    host = np.zeros((3, len(packed), width), np.int64)
    ids, positions, owners = host  # tokens; their places in their row; whose they are, from 1 (0: padding's)
    wanted = [np.zeros(0, np.int64)] * len(rows)  # flat places of each completion
    for b, members in enumerate(packed):
        start = 0
        for r in members:
            stop = start + len(rows[r])
            ids[b, start:stop] = rows[r]
            positions[b, start:stop] = np.arange(before, before + stop - start)
            owners[b, start:stop] = r + 1
            wanted[r] = b * width + np.arange(start + len(prompts[r]) - 1, stop)
            start = stop
    device = model.device
    ids_BS, positions_BS, owners_BS = torch.from_numpy(host).to(device)
    # A row's tokens look at its own before them, and padding at padding: a row of no keys is NaN. The mask is made
    # where it is used: it is as many times larger than these as it is wide.
    before_SS = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    mask_BSS = (owners_BS[:, :, None] == owners_BS[:, None, :]) & before_SS
    hidden_BSD = model.get_decoder()(
        ids_BS, attention_mask=mask_BSS[:, None], position_ids=positions_BS, use_cache=False, **inputs
    ).last_hidden_state
    hidden_ND = hidden_BSD.flatten(0, 1)[torch.from_numpy(np.concatenate(wanted)).to(device)]
    return list(model.get_output_embeddings()(hidden_ND).split([len(c) for c in completions]))


def _padded(model: GivesLogits, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[Tensor]:
    """Prompts padded on the left and completions on the right, so that all completions begin in one column."""
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
    """Prompts and completions padded on the right; the decoder reads the start token and all but the last."""
    shifted = [[model.config.decoder_start_token_id, *completion[:-1]] for completion in completions]
    ids, mask = _right(prompts, model.device)
    z_BTV = model(ids, attention_mask=mask, decoder_input_ids=_right(shifted, model.device)[0], use_cache=False).logits
    return [z_TV[: len(completion)] for z_TV, completion in zip(z_BTV, completions, strict=True)]


def _right(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T); padding has id 0, which the mask hides or, in a decoder, comes after all that counts."""
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids.to(device), mask.to(device)
