"""Teacher-forced passes: the logits of given completions, without a pad token where the model allows it.

Rows are packed end to end into bins under a block-diagonal causal mask, and the output layer runs on completion
positions alone. Models whose attention or output layer is not plain get a padded batch instead: the same values.
Where an encoder reads the prompt, the decoder reads its start token and the completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from synthgen.lm import prefix

_BIN = 256  # tokens of a bin, when no row is longer: enough for the matrix products, little for the S × S attention
_SCALED_OUTPUT = ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_scale", "output_multiplier_scale")


def completion_logits(
    model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], *, share: bool = False
) -> list[torch.Tensor]:
    """Logits of each row's completion positions, one (T, V) tensor a row: entry t predicts completion[t].

    Gradients flow. `share`: tokens that all prompts begin with are computed once (without gradients). Raises ValueError
    for a prompt without tokens: nothing predicts the first of its completion.
    """
    if model.config.is_encoder_decoder:
        return _encoded(model, prompts, completions)
    if not all(map(len, prompts)):
        raise ValueError("a prompt has no tokens: nothing predicts the first of its completion")
    if not _packs(model):
        return _padded(model, prompts, completions)
    distinct = list(dict.fromkeys(tuple(p) for p in prompts))
    shared = prefix.common(distinct) if share and prefix.enabled(model) and len(distinct) > 1 else 0
    more: dict[str, Any] = {}
    if shared >= prefix.WORTH_SHARING:
        more["shared_prefix"] = prefix.compute(model, list(distinct[0][:shared]))
    if more.get("shared_prefix") is None:
        shared, more = 0, {}
    return _packed(model, [p[shared:] for p in prompts], completions, shared, more)


def _packs(model: Any) -> bool:
    config = model.config.get_text_config()
    return prefix.plain(model) and not any(getattr(config, name, None) for name in _SCALED_OUTPUT)


def bins(lengths: Sequence[int]) -> list[list[int]]:
    """Rows for each bin, by first fit of the longest first; a bin holds `_BIN` tokens, or the longest row."""
    room = max(_BIN, *lengths)
    found: list[list[int]] = []
    free: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((b for b, left in enumerate(free) if left >= lengths[row]), None)
        if place is None:
            place = len(found)
            found.append([])
            free.append(room)
        found[place].append(row)
        free[place] -= lengths[row]
    return found


def _packed(
    model: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    before: int,
    more: dict[str, Any],
) -> list[torch.Tensor]:
    rows = [[*p, *c][:-1] for p, c in zip(prompts, completions, strict=True)]  # the last token predicts nothing kept
    packed = bins([len(row) for row in rows])
    width = max(sum(len(rows[r]) for r in some) for some in packed)
    # Numpy, and one copy to the device: this is the host's work of each pass, and a GPU waits for it.
    made = np.zeros((3, len(packed), width), np.int64)
    ids, positions, owners = made  # tokens; their places in their row; whose they are, from 1 (0: padding's)
    wanted: list[Any] = [None] * len(rows)  # flat places of each completion
    for b, some in enumerate(packed):
        start = 0
        for r in some:
            stop = start + len(rows[r])
            ids[b, start:stop] = rows[r]
            positions[b, start:stop] = np.arange(before, before + stop - start)
            owners[b, start:stop] = r + 1
            wanted[r] = b * width + np.arange(start + len(prompts[r]) - 1, stop)
            start = stop
    device = model.device
    ids_BS, positions_BS, owners_BS = torch.from_numpy(made).to(device)
    # A row's tokens look at its own before them, and padding at padding: a row of no keys is NaN. The mask is made
    # where it is used: it is as many times larger than these as it is wide.
    before_SS = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    mask_BSS = (owners_BS[:, :, None] == owners_BS[:, None, :]) & before_SS
    hidden_BSD = model.get_decoder()(
        ids_BS, attention_mask=mask_BSS[:, None], position_ids=positions_BS, use_cache=False, **more
    ).last_hidden_state
    hidden_ND = hidden_BSD.flatten(0, 1)[torch.from_numpy(np.concatenate(wanted)).to(device)]
    return list(model.get_output_embeddings()(hidden_ND).split([len(c) for c in completions]))


def _padded(model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
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


def _encoded(model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Prompts and completions padded on the right; the decoder reads the start token and all but the last."""
    shifted = [[model.config.decoder_start_token_id, *completion[:-1]] for completion in completions]
    ids, mask = _right(prompts, model.device)
    z_BTV = model(ids, attention_mask=mask, decoder_input_ids=_right(shifted, model.device)[0], use_cache=False).logits
    return [z_TV[: len(completion)] for z_TV, completion in zip(z_BTV, completions, strict=True)]


def _right(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (B, T); padding has id 0, which the mask hides or, in a decoder, comes after all that counts."""
    ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids.to(device), mask.to(device)
