"""Checks that a model gives a text the same logits in a batch of texts as alone.

    check_padding(model)                          # for texts that are read as a whole
    compare(model, "decode", lambda texts: …)     # for any other way to compute the logits after two texts

Texts of different lengths are padded, and the mask and the position of each token are given to the model. Most models
of transformers then compute what they compute for each text alone. But some models read the padding as text (RWKV,
RecurrentGemma), count positions in a way of their own (RoBERTa, BART), or do not use the cache that they are given.
Such a model would write and learn from wrong logits without an error, so it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from synthgen.errors import TeacherError
from synthgen.lm.forward import completion_logits, packs

_LENGTHS = (13, 5)
# The largest distance that is accepted, as a share of the norm of the logits. Rounding alone causes a distance, which
# is larger in 16 bits.
_SHARE = {torch.float32: 1e-3, torch.float64: 1e-3}
_SHARE_OF_16_BITS = 0.1


def check_padding(model: PreTrainedModel) -> None:
    """Raise TeacherError when `completion_logits` gives texts of a batch other logits than each text has alone."""
    if packs(model) or model.config.is_encoder_decoder:
        return
    compare(
        model,
        "be run",
        lambda texts: torch.stack([z_TV[-1] for z_TV in completion_logits(model, *_halves(texts))]),
    )


def _halves(texts: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts, completions) of texts. The last token of a completion is not read, so one more token is added."""
    return [list(text[:-1]) for text in texts], [[text[-1], 1] for text in texts]


@torch.no_grad()
def compare(model: PreTrainedModel, what: str, batched: Callable[[Sequence[Sequence[int]]], Tensor]) -> None:
    """Raise TeacherError when `batched` gives other logits than the model gives for each text alone.

    `batched` returns the logits (2, V) after two texts of different lengths. `what` says in the error's message what
    cannot be done in batches, as in "be run".
    """
    texts = _texts(model)
    training = model.training
    model.eval()
    try:
        wanted = torch.stack([_alone(model, text) for text in texts])
        found = batched(texts).float()
        share = float((found - wanted).norm() / (wanted - wanted.mean()).norm())
        close = share <= _SHARE.get(model.dtype, _SHARE_OF_16_BITS)
        reason = "" if close else f"the logits of a text differ by {share:.0%} from those that it has alone"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model can raise any error
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    finally:
        model.train(training)
    if reason:
        raise TeacherError(
            f"a model of type '{model.config.model_type}' cannot {what} in batches ({reason})",
            "use a model of another architecture",
        )


def _alone(model: PreTrainedModel, text: Sequence[int]) -> Tensor:
    logits: Tensor = model(torch.tensor([list(text)], device=model.device), use_cache=False).logits
    return logits[0, -1].float()


def _texts(model: PreTrainedModel) -> list[list[int]]:
    """Two texts of different lengths and tokens."""
    size = int(model.config.get_text_config().vocab_size)
    ids = [2 + 7919 * n % max(1, size - 2) for n in range(sum(_LENGTHS))]
    return [ids[: _LENGTHS[0]], ids[_LENGTHS[0] :]]
