"""Makes the entries of a student's loss statement from values that an evaluation computed for each row.

    compared(RIGHT, {"teacher": right_R, "student": also_R}, Scale(groups, 0))     # an Entry with intervals

The names of the models are those of `synthgen.results.statement.Entry`: "teacher", "base" and "student".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from distill.evaluation.grouped import DIFFERENCE, SHARE, Scale, widened
from distill.evaluation.slices import calibration_draws, chance_error
from distill.intervals import Array, spread
from synthgen.results.measures import FORMATS, Value, middle, shown
from synthgen.results.statement import Entry

Models = Mapping[str, Array]
"""The name of a model → its value for each row."""

ROLES = {"teacher": "teacher", "untrained": "base", "distilled": "student"}
"""The names of models in an evaluation's table → their names in a loss statement."""

BASE = "the student before its first training step"
OF_ITSELF = {"teacher": "the other models are compared with the teacher"}
NO_REFERENCE = "no held-out row has a reference answer"

RIGHT = Entry(
    dimension="accuracy",
    measure="answers right",
    format="percent",
    better="higher",
    unit="prompts",
    note="the share of answers that match the reference of their row.",
)
AGREEMENT = Entry(
    dimension="agreement",
    measure="same most likely token as the teacher",
    format="percent",
    better="higher",
    unit="completions",
    note="the share of positions at which the model and the teacher have the same most likely token.",
)
NLL = Entry(
    dimension="likelihood",
    measure="−log q of held-out answers, nats a token",
    better="lower",
    unit="completions",
    note="the mean of −log q over the tokens of the teacher's held-out answers, where q is the probability that the "
    "model gives to a token. The teacher wrote these answers, so the measure favors the teacher.",
)
ECE = Entry(
    dimension="calibration",
    measure="calibration error",
    format="percent",
    better="lower",
    note="Σ over 15 bins of |sum of hits − sum of confidences| / number of predictions (expected calibration error, "
    "Guo et al. 2017, arXiv 1706.04599). The confidence is the probability of the most likely {what}. The {what} is a "
    "hit if it is {hit}. In small samples, the error is too large",
)
SURE = Entry(
    dimension="calibration",
    measure="confidence minus share of hits",
    format="percent",
    note="positive if the model is overconfident, and negative if it is underconfident. This measure is not biased in "
    "small samples.",
)


def by_role(values: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of the models that a loss statement compares. The keys are the names in a loss statement."""
    return {ROLES[name]: array for name, array in values.items() if name in ROLES}


def compared(
    entry: Entry,
    values: Models,
    scale: Scale,
    *,
    weights: Array | None = None,
    missing: Mapping[str, str] | None = None,
    nothing: str = "there is nothing to measure",
) -> Entry:
    """A copy of `entry` with the mean of each model and the student's paired differences. Rows whose value is NaN are
    left out. For a difference, rows are left out in which one of both values is NaN.

    With `weights`, the means are Σ values / Σ weights. `missing` has the reasons why models have no values. `nothing`
    is the reason that is given when all values of a model are NaN.
    """
    is_share = FORMATS[entry.format].unit == "%" and entry.measure != SURE.measure
    bounds = (SHARE, DIFFERENCE) if is_share else (None, None)
    found = {role: _mean(array, scale, weights, bounds[0]) for role, array in values.items()}
    apart = {
        f"minus_{role}": _mean(values["student"] - values[role], scale, weights, bounds[1])
        for role in ("teacher", "base")
        if role in values and "student" in values
    }
    reasons = {role: nothing for role, value in found.items() if value is None}
    reasons |= {role: why for role, why in (missing or {}).items() if role not in values}
    known: list[int] = np.flatnonzero(~np.isnan(values["student"])).tolist() if "student" in values else []
    groups = {scale.groups[n] for n in known}
    return replace(entry.valued({**found, **apart}), n=len(known), groups=len(groups), missing=reasons)


def _mean(values_R: Array, scale: Scale, weights: Array | None, bounds: tuple[float, float] | None) -> Value:
    if weights is None:
        value = scale.known(values_R, bounds)
    else:
        value = widened(scale.of(values_R, weights), bounds, len(set(scale.groups)))
    number = middle(value)
    return value if number is not None and np.isfinite(number) else None


def calibrated(
    bins: Models,
    scale: Scale,
    *,
    what: str,
    hit: str,
    unit: str,
    missing: Mapping[str, str] | None = None,
) -> list[Entry]:
    """The entries on calibration. Each array of `bins` is (R, 15, 3); see `slices.calibration_bins`. `what` names what
    the model predicts, and `hit` names the right prediction.
    """
    some = {role: array for role, array in bins.items() if array[..., 0].sum() > 0}
    reasons = {**dict.fromkeys(bins.keys() - some.keys(), f"no {what} has a known answer"), **(missing or {})}
    note = ECE.note.format(what=what, hit=hit)
    if "student" not in some:
        return [replace(ECE, note=note, missing=reasons)]
    sure = {role: (array[..., 1] - array[..., 2]).sum(-1) for role, array in some.items()}
    counts = some["student"][..., 0].sum(-1)
    by_chance = ", ".join(f"{shown(chance_error(array), 'percent')} ({role})" for role, array in some.items())
    note += f". If the models were perfectly calibrated, the error would be about {by_chance} by chance."
    ece = replace(ECE.valued(_errors(some, scale)), note=note, missing=reasons)
    over = f"{SURE.note} There were {int(counts.sum()):,} {what}s."
    entries = [ece, compared(replace(SURE, note=over), sure, scale, weights=counts, missing=reasons)]
    return [replace(one, n=len(counts), groups=len(set(scale.groups)), unit=unit) for one in entries]


def _errors(bins: Models, scale: Scale) -> dict[str, Value]:
    """The calibration error of each model, and the student's paired differences."""
    made = {role: calibration_draws(array, scale.groups, scale.seed) for role, array in bins.items()}
    alone = len(set(scale.groups)) == 1
    found: dict[str, Value] = {role: mean if alone else spread(mean, draws) for role, (mean, draws) in made.items()}
    if "student" in made:
        mean, draws = made["student"]
        for role in made.keys() - {"student"}:
            value, others = made[role]
            found[f"minus_{role}"] = mean - value if alone else spread(mean - value, draws - others)
    return found
