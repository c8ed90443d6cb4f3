"""Computes what the tests need from a language model: the likelihood of a canary's codes, the likelihood of a row's
tokens, and the model's continuation of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from synthgen.auditing.models.scores import split
from synthgen.auditing.privacy.canaries import Canary
from synthgen.auditing.privacy.learned import Text
from synthgen.auditing.statistics import Numbers
from synthgen.errors import UserError
from synthgen.lm.forward import batches, completion_logits
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.lm.tree import Row, log_likelihoods

_ROWS = 16  # the number of rows in a batch


def code_rows(tokens: Tokens, canary: Canary, references: int) -> list[Row]:
    """A canary as token ids: the prompt, and the answer with each code. The secret comes first, then its references.
    Raises TeacherError when the tokenizer has no chat template.
    """
    prompt, _ = canary.messages()
    return split(tokens, tokens.render(prompt), canary.before, [canary.secret, *canary.references(references)])


def code_scores(model: LanguageModel, canaries: Sequence[Canary], references: int) -> Numbers:
    """(m, R + 1): the log-likelihood of each canary's secret, and of its R references, in nats.

    Codes of a canary that begin with the same tokens share the computation of these tokens; see `synthgen.lm.tree`.
    """
    scores = [log_likelihoods(model.weights.model, code_rows(model.tokens, one, references)) for one in canaries]
    return np.stack(scores)


def token_scores(model: LanguageModel, texts: Sequence[Text]) -> list[Numbers]:
    """For each row, (T,): the log-probability of each token of its completion, in nats."""
    lengths = [len(one.prompt) + len(one.completion) for one in texts]
    found: dict[int, Numbers] = {}
    for places in batches(sorted(range(len(texts)), key=lengths.__getitem__), lengths, _ROWS):
        found |= zip(places, _picked(model, [texts[i] for i in places]), strict=True)
    return [found[i] for i in range(len(texts))]


@torch.inference_mode()
def _picked(model: LanguageModel, texts: Sequence[Text]) -> Iterator[Numbers]:
    prompts, completions = [one.prompt for one in texts], [one.completion for one in texts]
    for one, logits_TV in zip(texts, completion_logits(model.weights.model, prompts, completions), strict=True):
        logp_TV = logits_TV.float().log_softmax(-1)
        yield logp_TV[range(len(one.completion)), one.completion].double().cpu().numpy()


def continuations(model: LanguageModel, texts: Sequence[Text], prefix: int, suffix: int) -> list[list[int]]:
    """The `suffix` tokens that the model writes greedily after each row's prompt and the first `prefix` tokens of its
    completion. Fewer tokens when the model ends the completion. Raises UserError when logits are not finite numbers.
    """
    prompts = [[*one.prompt, *one.completion[:prefix]] for one in texts]
    written = model.complete(prompts, ["0"] * len(prompts), temperature=0.0, max_new_tokens=suffix)
    if any(one.broken for one in written):
        raise UserError("the model's logits are not finite numbers", "check the weights of the model")
    return [one.tokens for one in written]
