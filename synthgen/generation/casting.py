"""Determines which teachers of a recipe write rows, score rows or act as judge, and which requests a teacher gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from synthgen.errors import RecipeError, TeacherError
from synthgen.logits import LogitsSpec
from synthgen.manifest import SourceTerms
from synthgen.prompts import Prompt, load_prompt
from synthgen.recipe import NO_TEACHER, Recipe
from synthgen.records import Message, Source
from synthgen.sources import source, terms_of
from synthgen.tables.engines import ENGINES, AnyTeacher
from synthgen.tables.reference import resolve
from synthgen.tables.strategies import REWARDS, STRATEGIES
from synthgen.tables.students import KINDS
from synthgen.teachers.base import RemoteTeacher, Teacher

Teachers = Mapping[str, Teacher | RemoteTeacher]
"""Opened teachers, by their names in the recipe."""


def short_name(model: str) -> str:
    """The short name of a model: the part of its name after the last slash, without "package:"."""
    return model.rsplit("/", 1)[-1].removeprefix("package:")


def cast(recipe: Recipe) -> dict[str, AnyTeacher]:
    """The recipe's sections of all teachers, by the teacher's name. If the recipe has only the section `teacher`, the
    short name of the model is the teacher's name. Raises RecipeError when the recipe has no teacher.
    """
    if recipe.teacher is None:
        raise RecipeError(*NO_TEACHER)
    return dict(recipe.teachers) or {short_name(recipe.teacher.model): recipe.teacher}


def answerers(recipe: Recipe) -> list[str]:
    """Names of the teachers whose completions become rows."""
    everybody = list(cast(recipe))
    if STRATEGIES[recipe.strategy].answered_by == "every":
        return everybody
    return list(recipe.mixture) or everybody[:1]


def scorers(recipe: Recipe) -> list[str]:
    """Names of the teachers that write no completions and only compute their distributions over the tokens of rows."""
    return list(recipe.logits.score_by) if recipe.logits else []


def judge(recipe: Recipe) -> str:
    """Name of the teacher that acts as judge."""
    return recipe.steps.judge or next(iter(cast(recipe)))


def logits_spec(recipe: Recipe) -> LogitsSpec | None:
    """The part of each distribution that is stored. None when the recipe or its strategy stores no distributions."""
    section = recipe.logits
    if section is None or not STRATEGIES[recipe.strategy].keeps_distributions:
        return None
    if section.kind == "sampled":
        return LogitsSpec("sampled", section.temperature, draws=section.draws)
    return LogitsSpec("topk", section.temperature, k=section.k)


def in_process(section: AnyTeacher) -> bool:
    """Whether a teacher is local."""
    return ENGINES[section.engine].in_process


def teacher_source(section: AnyTeacher, name: str, role: str) -> Source:
    """An entry for a row's column `sources` that names a teacher and the provider's tools that the teacher may use."""
    extra = getattr(section, "extra", {}).get("tools")
    tools = [str(tool.get("type", "")) for tool in extra] if isinstance(extra, list) else []
    used = sorted({tool for tool in tools if tool not in ("", "function")})
    return {**source(name, role, section.license), "account": section.account, "tools": used}


def prompt_sources(recipe: Recipe, prompt: Prompt) -> list[Source]:
    """Entries for a row's column `sources` that name the user's own templates, and the examples if there are any."""
    own = recipe.license or "unknown"
    examples = [source(f"{prompt.version}#examples", "few_shot", own)] if prompt.examples else []
    return [source(prompt.version, "template", own), *examples]


def versions(recipe: Recipe, teachers: Teachers | None = None) -> dict[str, str]:
    """The model and revision of each teacher, by the teacher's name. Row ids depend on the models and revisions. If no
    opened `teachers` are given, the revisions are unknown, and the result holds only the models.
    """
    if teachers is None:
        return {name: section.model for name, section in cast(recipe).items()}
    return {
        name: f"{short_name(section.model)}@{teachers[name].identity['revision'][:19]}"
        for name, section in cast(recipe).items()
    }


def roles(recipe: Recipe) -> list[SourceTerms]:
    """The manifest's entries for the teachers' roles."""
    strategy, everybody = STRATEGIES[recipe.strategy], cast(recipe)
    named = [("logits" if strategy.completions_given else "generator", name) for name in answerers(recipe)]
    named += [("logits", name) for name in scorers(recipe)]
    if strategy.judged and REWARDS[recipe.steps.choose].judge_offers:
        named.append(("judge", judge(recipe)))
    if strategy.rewrites and recipe.steps.rewriter:
        named.append(("rewriter", recipe.steps.rewriter))
    return [terms_of(teacher_source(everybody[name], everybody[name].model, role)) for role, name in named]


def needs(recipe: Recipe) -> list[tuple[str, str]]:
    """All pairs (teacher's name, kind of request) that the recipe needs."""
    strategy = STRATEGIES[recipe.strategy]
    wanted: list[tuple[str, str]] = [(name, strategy.request_kind) for name in answerers(recipe)]
    wanted += [(name, "score") for name in scorers(recipe)]
    if strategy.judged and REWARDS[recipe.steps.choose].judge_offers:
        wanted.append((judge(recipe), REWARDS[recipe.steps.choose].judge_offers))
    if strategy.rewrites:
        rewriters = [recipe.steps.rewriter] if recipe.steps.rewriter else answerers(recipe)
        wanted += [(name, strategy.rewriter_offers) for name in rewriters]
    return wanted


def refuse_incapable(recipe: Recipe, teachers: Teachers) -> None:
    """Raise TeacherError when the teachers cannot do what the recipe asks: two teachers are the same model, or a
    teacher lacks a capability that the recipe needs. Also raises TeacherError when a teacher would score rows whose
    tokens come from a different tokenizer, or when a chat template hides a message (see `synthgen.lm.template`).
    """
    first_with: dict[str, str] = {}
    for name, version in versions(recipe, teachers).items():
        if (first := first_with.setdefault(version, name)) != name:
            raise TeacherError(f"teachers '{first}' and '{name}' are the same model", "name each model once")
    for name, wanted in needs(recipe):
        if wanted not in teachers[name].can:
            raise TeacherError(
                f"teacher '{name}' ({teachers[name].identity['engine']}) does not offer '{wanted}', which this recipe "
                "needs",
                "use another model or engine for this teacher",
            )
    for name in scorers(recipe):
        for answerer in answerers(recipe):
            if teachers[name].identity["tokenizer"] != teachers[answerer].identity["tokenizer"]:
                raise TeacherError(
                    f"teachers '{answerer}' and '{name}' have different tokenizers, so '{name}' "
                    f"cannot score the tokens of '{answerer}'",
                    f"remove '{name}' from logits.score_by, or score the finished text with strategy 'score'",
                )
    refuse_hiding(recipe, teachers)


def refuse_hiding(recipe: Recipe, teachers: Mapping[str, object]) -> None:
    """Raise TeacherError when a teacher's chat template hides a message of the recipe's conversations, raises an error
    for one of them, or does not end. `teachers` holds teachers, or the `Tokens` of teachers, by name. Only the teachers
    in `teachers` are checked. Servers are not checked, because their templates are not known. If transformers is
    installed, the recipe's student is checked too: raises RecipeError when the student cannot read the prompts or
    cannot learn from the teacher.
    """
    prompt = load_prompt(recipe.prompts, recipe.task)
    for name, messages in _conversations(recipe, prompt):
        render = _renderer(teachers.get(name))
        if render is not None:
            render(messages)
    train = recipe.train
    kind = KINDS[train.student.kind] if train else None
    if train and kind and kind.check and not kind.needs_teacher(train.student):
        with suppress(ModuleNotFoundError):
            resolve(kind.check)(recipe, _asked_of_student(prompt))


def _renderer(teacher: object) -> Callable[[list[Message]], list[int]] | None:
    """The function with which a teacher renders messages. None when the teacher has no chat template on this
    machine.
    """
    tokens = getattr(teacher, "tokens", None)
    return getattr(teacher, "render", None) or getattr(tokens, "prompt", None)


def _conversations(recipe: Recipe, prompt: Prompt) -> Iterator[tuple[str, list[Message]]]:
    """Yield pairs: a teacher's name, and an example of a conversation that the teacher gets. Conversations that the
    seeds contain are left out.
    """
    strategy, reward = STRATEGIES[recipe.strategy], REWARDS[recipe.steps.choose]
    examples = [_turn(role) for _ in prompt.examples[:2] for role in ("user", "assistant")]
    asked = [
        *_system(prompt, "teacher_system" if "teacher_system" in prompt.templates else "system"),
        *examples,
        _turn("user"),
    ]
    for name in (*answerers(recipe), *scorers(recipe)):
        yield name, asked
    kind = KINDS[recipe.train.student.kind] if recipe.train else None
    if recipe.train and kind and kind.writes_text and kind.needs_teacher(recipe.train.student):
        yield next(iter(cast(recipe))), _asked_of_student(prompt)  # this student uses the first teacher's template
    steps = [*strategy.templates, *(prompt.beginning(strategy.template_prefix) if strategy.template_prefix else ())]
    rewriters = [recipe.steps.rewriter] if recipe.steps.rewriter else answerers(recipe)
    for name in rewriters if strategy.rewrites else ():
        yield from ((name, [*_system(prompt, f"{step}_system"), _turn("user")]) for step in steps)
    if strategy.judged and reward.template:
        yield judge(recipe), [*_system(prompt, f"{reward.template}_system"), _turn("user")]


def _asked_of_student(prompt: Prompt) -> list[Message]:
    return [*_system(prompt, "system"), _turn("user")]


def _system(prompt: Prompt, name: str) -> list[Message]:
    return [_turn("system")] if name in prompt.templates else []


def _turn(role: str) -> Message:
    return {"role": role, "content": "a text"}
