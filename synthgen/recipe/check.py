"""The rules that concern several sections of a recipe. The tuple RULES holds all these rules.

    broken_rules(recipe)     # returns all problems; `check_recipe` raises an error with one line for each problem

A rule never tests for the name of a strategy, an engine or a kind of student. A rule reads the fields of the entry in
STRATEGIES, ENGINES or KINDS, so the rule also applies to entries that other packages add.
"""

from __future__ import annotations

from collections.abc import Iterator

from synthgen.errors import nearest
from synthgen.recipe.check_train import RULES as TRAIN_RULES
from synthgen.recipe.check_train import Rule, reads_teacher
from synthgen.recipe.problem import Problem
from synthgen.recipe.root import Recipe
from synthgen.recipe.speakers import NO_TEACHER, answering, scoring, speaking
from synthgen.tables.curation import CHECKS
from synthgen.tables.engines import ENGINES
from synthgen.tables.strategies import STRATEGIES
from synthgen.tables.students import KINDS


def broken_rules(recipe: Recipe) -> list[Problem]:
    """All problems of a recipe, in the order of RULES."""
    return [problem for rule in RULES for problem in rule(recipe)]


# Names of teachers


def _teacher_is_named(recipe: Recipe) -> Iterator[Problem]:
    """A recipe that only curates rows, or trains on their text, needs no teacher. `generate` itself refuses a recipe
    without a teacher.
    """
    if recipe.teacher is None and recipe.train and reads_teacher(recipe.train):
        yield Problem(NO_TEACHER[0], ("teacher", "teachers"), named=False)


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


def _rules_fit_the_rows(recipe: Recipe) -> Iterator[Problem]:
    if recipe.teacher is None:
        return
    for name, check in CHECKS.items():
        if check.only_text and recipe.curate.settings(name) is not None:
            yield Problem(
                f"curate.{name} is for data sets of plain text, and the rows of a teacher have prompts",
                (f"curate.{name}", "teacher"),
                named=False,
            )


RULES: tuple[Rule, ...] = (
    _teacher_is_named,
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
    _rules_fit_the_rows,
    *TRAIN_RULES,
)


def _words(number: int) -> str:
    return {2: "two", 3: "three"}.get(number, str(number))
