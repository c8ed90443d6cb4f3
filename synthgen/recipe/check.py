"""The rules that concern several sections of a recipe. RULES lists all of them.

    broken_rules(recipe)     # returns all problems; `check_recipe` raises an error with one line for each problem

A rule never tests for the name of a strategy, an engine or a kind of student. It reads the fields of the entry in
STRATEGIES, ENGINES or KINDS, so it also applies to entries that other packages add.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from synthgen.errors import nearest
from synthgen.recipe.problem import Problem
from synthgen.recipe.root import Recipe
from synthgen.recipe.speakers import answering, scoring, speaking
from synthgen.recipe.train import TrainSection
from synthgen.tables.divergences import TargetKind, refusal
from synthgen.tables.engines import ENGINES
from synthgen.tables.strategies import STRATEGIES
from synthgen.tables.students import KINDS, Kind


def broken_rules(recipe: Recipe) -> list[Problem]:
    """All problems of a recipe, in the order of RULES."""
    return [problem for rule in RULES for problem in rule(recipe)]


# Names of teachers


def _one_way_to_name_teachers(recipe: Recipe) -> Iterator[Problem]:
    if recipe.teachers and recipe.teacher != next(iter(recipe.teachers.values())):
        yield Problem("give 'teacher' or 'teachers', not both", ("teacher", "teachers"))


def _teachers_exist(recipe: Recipe) -> Iterator[Problem]:
    named = [(f"mixture.{name}", name) for name in recipe.mixture]
    named += [(f"logits.score_by.{place}", name) for place, name in enumerate(scoring(recipe))]
    named += [("steps.judge", recipe.steps.judge)] if recipe.steps.judge else []
    named += [("evaluate.judge", recipe.evaluate.judge)] if recipe.evaluate.judge else []
    named += [("steps.rewriter", recipe.steps.rewriter)] if recipe.steps.rewriter else []
    for key, name in named:
        if name not in recipe.teachers:
            yield Problem(
                f"there is no teacher '{name}' in 'teachers'{nearest(name, recipe.teachers)}", (key, "teachers")
            )


def _judges_read_text(recipe: Recipe) -> Iterator[Problem]:
    if recipe.evaluate.judge and recipe.train and not KINDS[recipe.train.student.kind].writes_text:
        kind = recipe.train.student.kind
        yield Problem(f"students of kind '{kind}' write no text to judge", ("evaluate.judge", "train.student.kind"))


def _scoring_teachers_do_not_answer(recipe: Recipe) -> Iterator[Problem]:
    for place, name in enumerate(scoring(recipe)):
        if name in answering(recipe) and STRATEGIES[recipe.strategy].answered_by == "one":
            yield Problem(
                f"teacher '{name}' answers, so its distributions are stored in any case: leave this name out",
                (f"logits.score_by.{place}", "mixture"),
            )


# Requirements of a strategy


def _needs_answer_marker(recipe: Recipe) -> Iterator[Problem]:
    if STRATEGIES[recipe.strategy].needs_answer_marker and not recipe.generate.answer_marker:
        yield Problem(f"'{recipe.strategy}' needs generate.answer_marker", ("strategy", "generate.answer_marker"))


def _needs_labels(recipe: Recipe) -> Iterator[Problem]:
    least = STRATEGIES[recipe.strategy].least_labels
    if len(recipe.generate.labels) < least:
        yield Problem(
            f"'{recipe.strategy}' needs {_words(least)} or more generate.labels", ("strategy", "generate.labels")
        )


def _needs_candidates(recipe: Recipe) -> Iterator[Problem]:
    least = STRATEGIES[recipe.strategy].least_candidates
    if recipe.steps.candidates < least:
        yield Problem(
            f"strategy '{recipe.strategy}' needs {_words(least)} or more steps.candidates",
            ("steps.candidates", "strategy"),
        )


def _every_teacher_answers(recipe: Recipe) -> Iterator[Problem]:
    if STRATEGIES[recipe.strategy].answered_by != "every":
        return
    if len(recipe.teachers) < 2:
        yield Problem(f"'{recipe.strategy}' needs two or more 'teachers'", ("strategy", "teachers"))
    for key, given in (("mixture", recipe.mixture), ("logits.score_by", scoring(recipe))):
        if given:
            yield Problem(f"strategy '{recipe.strategy}' asks every teacher: leave this key out", (key, "strategy"))


def _given_completions_are_scored(recipe: Recipe) -> Iterator[Problem]:
    if not STRATEGIES[recipe.strategy].completions_given:
        return
    if recipe.logits is None:
        yield Problem(
            f"'{recipe.strategy}' needs a 'logits' section, because it makes only distributions",
            ("strategy", "logits"),
        )
    for key, given in (("mixture", len(recipe.mixture) > 1), ("logits.score_by", scoring(recipe))):
        if given:
            yield Problem(f"strategy '{recipe.strategy}' asks one teacher: leave this key out", (key, "strategy"))


def _scored_rows_have_completions(recipe: Recipe) -> Iterator[Problem]:
    if scoring(recipe) and not STRATEGIES[recipe.strategy].keeps_distributions:
        yield Problem(f"strategy '{recipe.strategy}' has no completions to score", ("logits.score_by", "strategy"))


# Capabilities of the engines that answer or score


def _engines_give_logits(recipe: Recipe) -> Iterator[Problem]:
    kept = recipe.logits
    if kept is None or not STRATEGIES[recipe.strategy].keeps_distributions:
        return
    for key, teacher in speaking(recipe):
        engine, whole = ENGINES[teacher.engine], "needs the whole distribution, which engine"
        keys = ("logits.kind", "logits", f"{key}.engine")
        if not engine.top_k:
            yield Problem(
                f"engine '{teacher.engine}' gives no distributions: set logits: null", ("logits", f"{key}.engine")
            )
        elif kept.kind == "sampled" and not engine.draws:
            yield Problem(f"'sampled' {whole} '{teacher.engine}' does not give: use kind: topk, or logits: null", keys)
        elif kept.kind == "topk" and kept.temperature != 1 and not engine.any_temperature:
            yield Problem(
                f"logits.temperature is {kept.temperature}: the normalizer of top-k logits at a temperature other than "
                f"1 {whole} '{teacher.engine}' does not give; use 1" + (", or kind: sampled" if engine.draws else ""),
                ("logits.temperature", f"{key}.engine"),
                named=False,
            )


def _engines_give_draws_along_text(recipe: Recipe) -> Iterator[Problem]:
    strategy = STRATEGIES[recipe.strategy]
    if recipe.logits is None or recipe.logits.kind != "sampled" or not strategy.keeps_distributions:
        return
    for key, teacher in speaking(recipe):
        engine, scores = ENGINES[teacher.engine], key.partition(".")[2] in scoring(recipe)
        if engine.draws and not engine.draws_along and (strategy.completions_given or scores):
            yield Problem(
                f"engine '{teacher.engine}' gives no draws along completions that it did not write; use kind: topk, "
                "or another engine",
                ("logits.kind", *(["logits.score_by"] if scores else []), "logits", f"{key}.engine"),
            )


def _logits_need_token_ids(recipe: Recipe) -> Iterator[Problem]:
    if recipe.logits is None or not STRATEGIES[recipe.strategy].keeps_distributions:
        return
    for key, teacher in speaking(recipe):
        if ENGINES[teacher.engine].tokens_as_text and getattr(teacher, "tokenizer", None) is None:
            yield Problem(
                f"engine '{teacher.engine}' returns tokens as text: name the model's tokenizer in {key}.tokenizer",
                ("logits", key),
            )


def _engines_give_so_many(recipe: Recipe) -> Iterator[Problem]:
    if recipe.logits is None or recipe.logits.kind != "topk" or not STRATEGIES[recipe.strategy].keeps_distributions:
        return
    for key, teacher in speaking(recipe):
        limit = ENGINES[teacher.engine].most_k
        most = limit(teacher) if limit else None
        if most is not None and recipe.logits.k > most:
            yield Problem(
                f"logits.k is {recipe.logits.k}, but this server returns at most {most} tokens",
                ("logits.k", key),
                named=False,
            )


def _engines_keep_a_form(recipe: Recipe) -> Iterator[Problem]:
    for key, teacher in speaking(recipe):
        engine = ENGINES[teacher.engine]
        if recipe.generate.json_schema is not None and not engine.json_schema:
            yield Problem(
                f"engine '{teacher.engine}' cannot make answers follow a JSON schema",
                ("generate.json_schema", f"{key}.engine"),
            )
        if recipe.generate.regex is not None and not engine.regex:
            yield Problem(
                f"engine '{teacher.engine}' cannot make answers match a pattern", ("generate.regex", f"{key}.engine")
            )


# What a student can learn from


def _students_need_a_teacher_here(recipe: Recipe) -> Iterator[Problem]:
    if recipe.train and not ENGINES[recipe.teacher.engine].in_process:
        yield Problem(
            f"training, also with train.online, needs a local teacher, and engine '{recipe.teacher.engine}' is not "
            "local; leave out 'train' to only make and curate the corpus",
            ("train", "teacher.engine"),
        )


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
    "across": "this student does not learn from stored distributions over tokens",
    "hidden": "only decoders have layers that are compared with the teacher's",
    "relations": "only decoders have layers that are compared with the teacher's",
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


def _students_have_distributions(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if train is None or recipe.logits or train.kd_weight == 0 or not _kind(train).learns_from_distributions:
        return
    dropped = train.rationale is not None and train.rationale.mode == "dropped"
    if not (dropped or train.online or train.across) and STRATEGIES[recipe.strategy].keeps_distributions:
        yield Problem(
            f"a student of kind '{train.student.kind}' needs distributions: add a 'logits' section or train.online, or "
            "set train.kd_weight to 0 to learn from the tokens alone",
            ("train.kd_weight", "train", "logits"),
        )


def _losses_are_defined(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train
    if train is None or train.online or not _kind(train).learns_from_distributions:
        return
    stored: TargetKind | None = "topk" if train.across else recipe.logits.kind if recipe.logits else None
    reason = refusal(train.loss, stored) if stored else None
    if reason:
        yield Problem(f"this loss cannot be computed with logits.kind: {reason}", ("train.loss", "logits.kind"))


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
    named += [("train.ensemble.teachers", name) for name in train.ensemble.names] if train.ensemble else []
    for key, name in named:
        if name not in there:
            yield Problem(f"the logits of '{name}' are not stored{nearest(name, there)}", (key,))


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


Rule = Callable[[Recipe], Iterator[Problem]]

RULES: tuple[Rule, ...] = (
    _one_way_to_name_teachers,
    _teachers_exist,
    _judges_read_text,
    _scoring_teachers_do_not_answer,
    _needs_answer_marker,
    _needs_labels,
    _needs_candidates,
    _every_teacher_answers,
    _given_completions_are_scored,
    _scored_rows_have_completions,
    _engines_give_logits,
    _engines_give_draws_along_text,
    _logits_need_token_ids,
    _engines_give_so_many,
    _engines_keep_a_form,
    _students_need_a_teacher_here,
    _students_fit_the_rows,
    _students_accept_these_keys,
    _students_learn_by_this_loss,
    _students_have_distributions,
    _losses_are_defined,
    _targets_are_one,
    _targets_are_stored,
    _ensembles_have_weights,
    _ensembles_have_probabilities,
)


def _kind(train: TrainSection) -> Kind:
    return KINDS[train.student.kind]


def _from_stored(recipe: Recipe) -> TrainSection | None:
    """The recipe's section `train` if the student learns from stored distributions, otherwise None."""
    train = recipe.train
    if train is None or recipe.logits is None or train.online or train.kd_weight == 0:
        return None
    return train if _kind(train).learns_from_distributions else None


def _words(number: int) -> str:
    return {2: "two", 3: "three"}.get(number, str(number))
