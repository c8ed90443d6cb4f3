"""The rules about what a student can learn from: which rows, which teacher, and which distributions.

`synthgen.recipe.check` runs these rules together with the rules about the other sections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from synthgen.errors import nearest
from synthgen.recipe.problem import Problem
from synthgen.recipe.root import Recipe
from synthgen.recipe.speakers import answering, scoring
from synthgen.recipe.train import TrainSection
from synthgen.tables.divergences import TargetKind, refusal
from synthgen.tables.engines import ENGINES
from synthgen.tables.strategies import STRATEGIES
from synthgen.tables.students import KINDS, Kind

Rule = Callable[[Recipe], Iterator[Problem]]
"""Yields the problems of a recipe."""


def _students_need_a_teacher_here(recipe: Recipe) -> Iterator[Problem]:
    train, teacher = recipe.train, recipe.teacher
    if train is None or teacher is None or ENGINES[teacher.engine].in_process:
        return
    reason = reads_teacher(train)
    if reason:
        yield Problem(
            f"{reason} needs a local teacher, and engine '{teacher.engine}' is not local; name a checkpoint in "
            "train.student.model to learn from the teacher's replies",
            ("train", "teacher.engine"),
        )


def reads_teacher(train: TrainSection) -> str:
    """The part of the training that needs the teacher's tokenizer or weights in this process; "" when no part needs
    them.
    """
    kind = _kind(train)
    if kind.needs_teacher(train.student):
        return f"this student of kind '{train.student.kind}'"
    return next((f"train.{key}" for key in ("online", "hidden", "relations") if getattr(train, key)), "")


def _students_fit_the_rows(recipe: Recipe) -> Iterator[Problem]:
    if recipe.train is None:
        return
    strategy, name = STRATEGIES[recipe.strategy], recipe.train.student.kind
    fitting = [kind for kind, entry in KINDS.items() if entry.learns_from == strategy.rows]
    if not fitting:
        yield Problem(f"no kind of student learns from {strategy.rows}; leave 'train' out", ("train", "strategy"))
    elif name not in fitting:
        others = [key for key, entry in STRATEGIES.items() if entry.rows == KINDS[name].learns_from]
        needed = f"strategy '{others[0]}'" if len(others) == 1 else f"a strategy that makes {KINDS[name].learns_from}"
        yield Problem(
            f"a student of kind '{name}' needs {needed}, and '{recipe.strategy}' makes {strategy.rows} (for students "
            f"of kind {', '.join(fitting)})",
            ("train.student.kind", "train", "strategy"),
        )


_ABOUT = {
    "kd_weight": "the rows of this student have no labels that could be mixed in",
    "rationale": "it is for students that write text",
    "online": "it is for students whose tokens a live teacher can score",
    "teacher": "this student does not learn from stored distributions over tokens",
    "ensemble": "this student does not learn from stored distributions over tokens",
    "mask_divergence": "this student does not learn from stored distributions over tokens",
    "across": "this student does not learn from stored distributions over tokens",
    "hidden": "only decoders have layers that are compared with the teacher's",
    "relations": "only decoders have layers that are compared with the teacher's",
    "canaries": "canaries are for students that give texts a likelihood",
}


def _students_accept_these_keys(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if train is None:
        return
    for key, about in _ABOUT.items():
        given = getattr(train, key) != TrainSection.model_fields[key].default
        if given and key not in _kind(train).accepts:
            yield Problem(
                f"a student of kind '{train.student.kind}' does not use this key: {about}",
                (f"train.{key}", "train.student.kind"),
            )


def _students_learn_by_this_loss(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    allowed = _kind(train).divergences if train else None
    if train is None or allowed is None or train.loss == TrainSection.model_fields["loss"].default:
        return
    if train.loss not in allowed:
        how = f"learns by {' or '.join(allowed)}" if allowed else "has a loss of its own"
        yield Problem(
            f"train.loss is '{train.loss}', but a student of kind '{train.student.kind}' {how}",
            ("train.loss", "train.student.kind"),
            named=False,
        )


def _frequencies_have_no_zeros_in_the_loss(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if train is None or not STRATEGIES[recipe.strategy].frequencies or _kind(train).divergences == ():
        return
    reason = refusal(train.loss, "sampled")
    if reason:
        yield Problem(
            f"the label probabilities of strategy '{recipe.strategy}' are shares of several answers: {reason}",
            ("train.loss", "strategy"),
        )


def _students_have_distributions(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if train is None or recipe.logits or train.kd_weight == 0 or not _kind(train).learns_from_distributions:
        return
    dropped = train.rationale is not None and train.rationale.mode == "dropped"
    elsewhere = train.across is not None and train.across.run is not None
    if not (dropped or train.online or elsewhere) and STRATEGIES[recipe.strategy].keeps_distributions:
        yield Problem(
            f"a student of kind '{train.student.kind}' needs distributions: add a 'logits' section or train.online, or "
            "set train.kd_weight to 0 to learn from the tokens alone",
            ("train.kd_weight", "train", "logits"),
        )


def _losses_are_defined(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if train is None or train.online or not _kind(train).learns_from_distributions:
        return
    elsewhere = train.across is not None and train.across.run is not None
    stored: TargetKind | None = "topk" if elsewhere else recipe.logits.kind if recipe.logits else None
    reason = refusal(train.loss, stored) if stored else None
    if reason:
        yield Problem(f"this loss cannot be computed with logits.kind: {reason}", ("train.loss", "logits.kind"))


def _aligned_targets_are_probabilities(recipe: Recipe) -> Iterator[Problem]:
    train, kept = recipe.train, recipe.logits
    if train is None or kept is None or train.across is None or train.across.run:
        return
    if kept.kind != "topk" or kept.temperature != 1:
        yield Problem(
            "train.across aligns top-k distributions at temperature 1: set logits: {kind: topk, temperature: 1}",
            ("train.across", "logits.kind", "logits"),
            named=False,
        )


def _targets_are_one(recipe: Recipe) -> Iterator[Problem]:
    train = _from_stored(recipe)
    if train is None:
        return
    several = len(recipe.mixture) > 1 or STRATEGIES[recipe.strategy].answered_by == "every"
    if several or (scoring(recipe) and not (train.teacher or train.ensemble or train.across)):
        how = "leave 'train' out" if several else "name one teacher in train.teacher, or merge them with train.ensemble"
        yield Problem(
            f"a student of kind '{train.student.kind}' learns from the logits of one teacher; {how}",
            ("train", "mixture" if several else "logits.score_by"),
        )


def _targets_are_stored(recipe: Recipe) -> Iterator[Problem]:
    train, there = _from_stored(recipe), [*answering(recipe), *scoring(recipe)]
    if train is None:
        return
    named = [("train.teacher", train.teacher)] if train.teacher else []
    named += [("train.mask_divergence", train.mask_divergence)] if train.mask_divergence else []
    named += [("train.ensemble.teachers", name) for name in train.ensemble.names] if train.ensemble else []
    for key, name in named:
        if name not in there:
            yield Problem(f"the logits of '{name}' are not stored{nearest(name, there)}", (key,))


def _masks_have_probabilities(recipe: Recipe) -> Iterator[Problem]:
    train = _from_stored(recipe)
    if train is None or recipe.logits is None or not train.mask_divergence:
        return
    if recipe.logits.kind != "topk":
        yield Problem(
            "train.mask_divergence compares most likely tokens, and draws do not show them: set logits: {kind: topk}",
            ("train.mask_divergence", "logits.kind"),
            named=False,
        )
    if not train.teacher:
        yield Problem(
            "train.mask_divergence compares two teachers: name the first one in train.teacher",
            ("train.mask_divergence", "train.teacher"),
            named=False,
        )


def _ensembles_have_weights(recipe: Recipe) -> Iterator[Problem]:
    train = _from_stored(recipe)
    ensemble = train.ensemble if train else None
    if ensemble is None:
        return
    count = len(ensemble.names or [*answering(recipe), *scoring(recipe)])
    if count < 2:
        yield Problem(
            "an ensemble needs two or more teachers: add teachers to logits.score_by",
            ("train.ensemble", "logits.score_by"),
        )
    if ensemble.by == "agreement" and count == 2:
        yield Problem(
            "two teachers always get equal weights by agreement: name three teachers, or use uniform",
            ("train.ensemble.by",),
        )
    if ensemble.by == "validation" and not recipe.split.validation:
        yield Problem(
            "train.ensemble.by is 'validation', which needs validation rows: set split.validation",
            ("train.ensemble.by", "split"),
            named=False,
        )


def _ensembles_have_probabilities(recipe: Recipe) -> Iterator[Problem]:
    train = _from_stored(recipe)
    ensemble = train.ensemble if train else None
    if ensemble is None or recipe.logits is None or recipe.logits.kind != "sampled":
        return
    if ensemble.merge == "pool":
        yield Problem(
            "with draws, merge: pool is biased, and a token that one teacher never drew gets no probability; use "
            "merge: mean, or logits.kind: topk",
            ("train.ensemble.merge", "logits.kind"),
        )
    if ensemble.by in ("validation", "agreement"):
        yield Problem(
            f"train.ensemble.by is '{ensemble.by}', which needs probabilities, and draws give most tokens probability "
            "zero; use uniform, give weights, or set logits.kind: topk",
            ("train.ensemble.by", "logits.kind"),
            named=False,
        )


def _kind(train: TrainSection) -> Kind:
    return KINDS[train.student.kind]


def _from_stored(recipe: Recipe) -> TrainSection | None:
    """The recipe's section `train` if the student learns from stored distributions, otherwise None."""
    train = recipe.train
    if train is None or recipe.logits is None or train.online or train.kd_weight == 0:
        return None
    return train if _kind(train).learns_from_distributions else None


RULES: tuple[Rule, ...] = (
    _students_need_a_teacher_here,
    _students_fit_the_rows,
    _students_accept_these_keys,
    _students_learn_by_this_loss,
    _frequencies_have_no_zeros_in_the_loss,
    _students_have_distributions,
    _losses_are_defined,
    _aligned_targets_are_probabilities,
    _targets_are_one,
    _targets_are_stored,
    _masks_have_probabilities,
    _ensembles_have_weights,
    _ensembles_have_probabilities,
)
