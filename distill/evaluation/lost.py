"""Makes the entries of a student's loss statement from values that an evaluation computed for each row.

    compared(RIGHT, {"teacher": right_R, "student": also_R}, Scale(groups, 0))     # an Entry with intervals

The names of the models are those of `synthgen.results.statement.Entry`: "teacher", "base" and "student".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from distill.evaluation.grouped import DIFFERENCE, SHARE, Scale, widened
from distill.evaluation.slices import calibration_draws, chance_error
from distill.intervals import Array, spread
from synthgen.results.measures import FORMATS, Interval, Value, middle, shown
from synthgen.results.statement import FEWEST, Entry

Models = Mapping[str, Array]
"""The name of a model → its value for each row."""

ROLES = {"teacher": "teacher", "untrained": "base", "distilled": "student"}
"""The names of models in an evaluation's table → their names in a loss statement."""

BASE = "the student before its first training step"
OF_ITSELF = {"teacher": "the other models are compared with the teacher"}
NO_REFERENCE = "no held-out row has a reference answer"
_NOT_FINITE = "some of its values are infinite or not numbers, so they have no mean"

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
    is the reason that is given when all values of a model are NaN. A difference over fewer than FEWEST groups has no
    interval if the student was measured on more groups, because `Entry.groups` then does not show how few they are.
    """
    is_share = FORMATS[entry.format].unit == "%" and entry.measure != SURE.measure
    bounds = (SHARE, DIFFERENCE) if is_share else (None, None)
    found = {role: _mean(array, scale, weights, bounds[0]) for role, array in values.items()}
    reasons = {role: nothing if np.isnan(values[role]).all() else _NOT_FINITE for role in values if found[role] is None}
    reasons |= {role: why for role, why in (missing or {}).items() if role not in values}
    if "student" not in values:
        return replace(entry.valued(found), missing=reasons)
    known, groups = _known(values["student"], scale)
    apart, note = {}, entry.note
    for role in [one for one in ("teacher", "base") if one in values]:
        difference_R = values["student"] - values[role]
        both, shared = _known(difference_R, scale)
        value = _mean(difference_R, scale, weights, bounds[1])
        apart[f"minus_{role}"] = middle(value) if shared < FEWEST <= groups else value
        if 0 < both < known:
            note += f" The difference from the {role} is over {both:,} {entry.unit} in {shared:,} groups."
    return replace(entry.valued({**found, **apart}), n=known, groups=groups, missing=reasons, note=note)


def _known(values_R: Array, scale: Scale) -> tuple[int, int]:
    """(the number of rows whose value is not NaN, the number of their groups)."""
    places = np.flatnonzero(~np.isnan(values_R)).tolist()
    return len(places), len({scale.groups[n] for n in places})


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
    note += " The intervals of the differences allow for such errors."
    ece = replace(ECE.valued(_errors(some, scale)), note=note, missing=reasons)
    over = f"{SURE.note} There were {int(counts.sum()):,} {what}s."
    entries = [ece, compared(replace(SURE, note=over), sure, scale, weights=counts, missing=reasons)]
    alike = [role for role, array in some.items() if array[..., 2].sum() in (0, array[..., 0].sum())]
    entries = [_uncertain(one, alike, what) for one in entries]
    return [replace(one, n=len(counts), groups=len(set(scale.groups)), unit=unit) for one in entries]


def _uncertain(entry: Entry, alike: Sequence[str], what: str) -> Entry:
    """An entry on calibration without the intervals that depend on the models `alike`. Of each of these models, either
    all predictions are hits, or none is. In all resamples the model's share of hits is the same, so a bootstrap would
    claim that this share is known exactly.
    """
    if not alike:
        return entry
    values = {role: getattr(entry, role) for role in ("teacher", "base", "student")}
    for role in ("teacher", "base"):
        values[f"minus_{role}"] = getattr(entry, f"minus_{role}")
    unsure = {*alike, *(f"minus_{role}" for role in ("teacher", "base") if {role, "student"} & set(alike))}
    note = f" No interval depends on the {' and the '.join(alike)}: each {what} was a hit, or none was."
    values = {name: middle(value) if name in unsure else value for name, value in values.items()}
    return replace(entry.valued(values), note=entry.note + note)


def _errors(bins: Models, scale: Scale) -> dict[str, Value]:
    """The calibration error of each model, and the student's paired differences.

    The error of a sample is too large by up to the error that chance alone gives, and this excess is not the same for
    two models: a model that is sure has a smaller one. The interval of a difference is therefore wider by the excess
    that the student can have, and by that of the other model.
    """
    made = {role: calibration_draws(array, scale.groups, scale.seed) for role, array in bins.items()}
    alone = len(set(scale.groups)) == 1
    found: dict[str, Value] = {role: mean if alone else spread(mean, draws) for role, (mean, draws) in made.items()}
    excess = {role: max(chance_error(bins[role]), _excess(*one)) for role, one in made.items()}
    for role in made.keys() - {"student"} if "student" in made else ():
        (mean, draws), (value, others) = made["student"], made[role]
        apart, drawn = mean - value, draws - others
        if alone:
            found[f"minus_{role}"] = apart
        else:
            between = spread(apart, drawn - drawn.mean() + apart)
            ends = max(between.low - excess["student"], -1.0), min(between.high + excess[role], 1.0)
            found[f"minus_{role}"] = Interval(apart, *ends)
    return found


def _excess(error: float, draws: Array) -> float:
    """By how much a calibration error may be too large, by its resamples, in which whole groups are drawn. If a model
    is perfectly calibrated, the differences in the bins are normal around zero. A resample then doubles their variance,
    so its error is √2 times as large.
    """
    return max(float(draws.mean()) - error, 0.0) / (np.sqrt(2) - 1)
