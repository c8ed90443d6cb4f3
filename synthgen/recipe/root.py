"""The whole recipe: its sections, and default values that depend on other sections."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from synthgen.recipe.audit import AuditSection
from synthgen.recipe.curate import CurateSection
from synthgen.recipe.evaluate import EvaluateSection
from synthgen.recipe.generate import GenerateSection
from synthgen.recipe.logits import LogitsSection
from synthgen.recipe.seeds import SeedSource
from synthgen.recipe.split import Split
from synthgen.recipe.steps import StepsSection
from synthgen.recipe.train import TrainSection
from synthgen.tables.engines import ENGINES, AnyTeacher
from synthgen.tables.section import Name, PathName, Section, chosen_by, name_in
from synthgen.tables.strategies import STRATEGIES
from synthgen.tables.students import KINDS

_ENGINE = chosen_by(ENGINES, "engine", "transformers")


class Recipe(Section):
    """One task: its corpus and one student.

    Validation checks each section by itself. `synthgen.recipe.check_recipe` also checks the rules across sections;
    `load_recipe` and every command call this function.
    """

    task: str
    """Name of the task, as rows, cards and messages give it."""
    description: str = ""
    """One sentence about the corpus, for its card."""
    notes: tuple[str, ...] = ()
    """Sentences for the readers of the cards, about the intended use, limits, safety and terms. The cards of the corpus
    and of the student show these sentences under "Use and limits"."""
    license: str | None = None
    """License of your own seeds, templates and examples: an SPDX id such as CC0-1.0 or CC-BY-4.0, an expression of ids
    such as `MIT OR Apache-2.0`, or a key of data/licenses.yaml. An entry of `seeds` may state another license."""
    strategy: Annotated[str, name_in(STRATEGIES)] = "answer"
    """How rows are made from a seed."""
    seeds: tuple[SeedSource, ...] = Field(min_length=1)
    """Sources of the seeds. The teacher is asked about each seed."""
    prompts: PathName = "."
    """Folder with the templates; the recipe's own folder when left out."""
    split: Split = Split()
    """Which seeds are held out."""
    teacher: Annotated[AnyTeacher | None, _ENGINE] = None
    """The teacher model. `engine` says what runs or calls the teacher. Only a recipe that trains on rows of a data set
    needs no teacher.
    """
    teachers: dict[Name, Annotated[AnyTeacher, _ENGINE]] = {}
    """Several teachers by name, instead of `teacher`. The first teacher answers, unless `mixture` or the strategy says
    otherwise."""
    mixture: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Name of a teacher → weight. Each seed is answered by one of these teachers, chosen at random by weight."""
    generate: GenerateSection = GenerateSection()
    """How the teacher is asked."""
    steps: StepsSection = StepsSection()
    """Settings for strategies that send more than one request about a seed."""
    logits: LogitsSection | None = LogitsSection()
    """The form in which the teacher's distributions are stored. When left out, draws are stored if every answering
    teacher can draw from its full distribution; otherwise nothing is stored.
    """
    curate: CurateSection = CurateSection()
    """The checks that a row must pass."""
    audit: AuditSection = AuditSection()
    """The intended use that the audit judges."""
    train: TrainSection | None = None
    """How a student learns from the corpus; without this section no student is trained."""
    evaluate: EvaluateSection = EvaluateSection()
    """How the student is measured."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Fill in values that follow from other keys. `teacher` becomes the first of `teachers`. Seeds inherit the
        recipe's license. If `logits` is left out, it becomes null unless every answering teacher can draw from its full
        distribution. If no distributions are stored then, and `train.kd_weight` is left out, `train.kd_weight` becomes
        0: the student learns from the tokens alone.
        """
        if not isinstance(values, dict):
            return values
        named = values.get("teachers")
        if isinstance(named, dict) and named and values.get("teacher") is None:
            values = {**values, "teacher": next(iter(named.values()))}
        if values.get("license") is not None and isinstance(values.get("seeds"), list | tuple):
            inherited = {"license": values["license"]}
            seeds = [{**inherited, **seed} if isinstance(seed, dict) else seed for seed in values["seeds"]]
            values = {**values, "seeds": seeds}
        if "logits" in values or _all_draw(values):
            return values
        return {**values, "logits": None, **_text_alone(values)}


def _all_draw(values: dict[str, Any]) -> bool:
    """Whether every teacher whose completions become rows can draw from its full distribution.

    `values` are not validated yet. If `values` are invalid, the result is True, because validation reports this later.
    """
    teachers, mixture = values.get("teachers"), values.get("mixture")
    if values.get("teacher") is None:
        return False
    answering = [values.get("teacher")]
    if isinstance(teachers, dict) and teachers:
        strategy = STRATEGIES.get(str(values.get("strategy")))
        names = [*mixture] if isinstance(mixture, dict) and mixture else [*teachers][:1]
        names = [*teachers] if strategy and strategy.answered_by == "every" else names
        answering = [teachers.get(name) for name in names]
    engines = [ENGINES.get(str(_engine(teacher))) for teacher in answering]
    return all(engine is None or engine.draws for engine in engines)


def _engine(teacher: object) -> object:
    if isinstance(teacher, AnyTeacher):
        return teacher.engine
    return teacher.get(_ENGINE.key, _ENGINE.default) if isinstance(teacher, dict) else None


def _text_alone(values: dict[str, Any]) -> dict[str, Any]:
    """The section `train` with kd_weight 0, for a recipe that stores no distributions because an answering teacher
    cannot draw them. The result is {} when the section is left out, states a weight, or has another key that asks for
    distributions.
    """
    train = values.get("train")
    if not isinstance(train, dict) or any(key in train for key in ("kd_weight", *_DISTRIBUTIONS)):
        return {}
    student = train.get("student")
    kind = KINDS.get(str(student.get("kind", "decoder") if isinstance(student, dict) else "decoder"))
    strategy = STRATEGIES.get(str(values.get("strategy", "answer")))
    writes = kind and kind.learns_from_distributions and strategy and strategy.keeps_distributions
    return {"train": {**train, "kd_weight": 0.0}} if writes else {}


_DISTRIBUTIONS = ("online", "across", "teacher", "mask_divergence", "ensemble", "loss")
"""Keys of `train` that need distributions."""
