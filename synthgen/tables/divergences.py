"""TABLE: for each divergence, the kinds of distribution from which the divergence can be computed.

    refusal("reverse_kl", "sampled")      # why not, in one line; None when the divergence can be computed

This module does not import torch, so that an invalid recipe is refused before anything is loaded. The formulas are in
`distill.losses`.
"""

from __future__ import annotations

from typing import Literal, get_args

Divergence = Literal[
    "forward_kl", "reverse_kl", "jsd", "skew_kl", "skew_reverse_kl", "adaptive_kl", "mse", "cross_entropy"
]
TargetKind = Literal["dense", "topk", "sampled", "labels"]

_ZEROS = "draws give most tokens probability zero, and student probability on such a token makes the loss infinite"
_BIASED = "the loss is not linear in the teacher's probabilities, so draws give a biased estimate"
_SORTED = "the loss needs the teacher's sorted distribution, which draws do not give"
_LOGITS = "the loss compares every logit, and the stored distributions leave most of them out"
_LABEL = "a label is one token, not a distribution; use cross_entropy"

# A dense target has every log-probability. A topk target has K log-probabilities and the residual mass, at one
# temperature. The divergence for a topk target is between two distributions over K + 1 outcomes. The divergence for a
# topk target is a lower bound on the full divergence. A sampled target has counts of draws. The loss for a sampled
# target is the divergence plus the teacher's entropy, which the draws do not reveal. The gradient of the loss for a
# sampled target is unbiased. A labels target has one token for each position. In TABLE, None means that the divergence
# is defined for the kind of target. A text in TABLE says why the divergence is not defined.
TABLE: dict[Divergence, dict[TargetKind, str | None]] = {
    "forward_kl": {"dense": None, "topk": None, "sampled": None, "labels": _LABEL},
    "reverse_kl": {"dense": None, "topk": None, "sampled": _ZEROS, "labels": _LABEL},
    "jsd": {"dense": None, "topk": None, "sampled": _BIASED, "labels": _LABEL},
    "skew_kl": {"dense": None, "topk": None, "sampled": _BIASED, "labels": _LABEL},
    "skew_reverse_kl": {"dense": None, "topk": None, "sampled": _BIASED, "labels": _LABEL},
    "adaptive_kl": {"dense": None, "topk": None, "sampled": _SORTED, "labels": _LABEL},
    "mse": {"dense": None, "topk": _LOGITS, "sampled": _LOGITS, "labels": _LABEL},
    "cross_entropy": {"dense": None, "topk": None, "sampled": None, "labels": None},
}


def refusal(divergence: Divergence, target: TargetKind) -> str | None:
    """Why `divergence` is not defined for targets of kind `target`, in one line; None when it is defined."""
    reason = TABLE[divergence][target]
    if reason is None:
        return None
    others = [name for name in get_args(Divergence) if TABLE[name][target] is None]
    return f"{divergence} is not defined for {target} targets: {reason} (defined: {', '.join(others)})"
