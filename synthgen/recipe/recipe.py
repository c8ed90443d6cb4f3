"""The recipe as a whole."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from synthgen.recipe.audit import AuditSection
from synthgen.recipe.check import check, check_targets, refuse_student, speakers
from synthgen.recipe.curate import CurateSection
from synthgen.recipe.evaluate import EvaluateSection
from synthgen.recipe.generate import GenerateSection, StepsSection, Strategy
from synthgen.recipe.logits import LogitsSection
from synthgen.recipe.seeds import SeedSource, Split
from synthgen.recipe.train import TrainSection
from synthgen.tables.engines import AnyTeacher, LocalTeacher, refuse_form, refuse_logits, with_engine
from synthgen.tables.section import Name, Section


class Recipe(Section):
    """One task, its corpus, one student."""

    task: str
    """Name of the run's task; also the folder under prompts/ unless `prompts` says otherwise."""
    description: str = ""
    strategy: Strategy = "answer"
    seeds: tuple[SeedSource, ...] = Field(min_length=1)
    prompts: str = "."
    """Folder with the templates."""
    split: Split = Split()
    teacher: AnyTeacher
    teachers: dict[Name, AnyTeacher] = Field({})
    """Several teachers by name, in place of `teacher`; the first is asked unless another key says otherwise."""
    mixture: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """Teacher -> weight: which of `teachers` answers a seed."""
    generate: GenerateSection = GenerateSection()
    steps: StepsSection = StepsSection()
    logits: LogitsSection | None = LogitsSection()
    curate: CurateSection = CurateSection()
    audit: AuditSection = AuditSection()
    train: TrainSection | None = None
    evaluate: EvaluateSection = EvaluateSection()

    @model_validator(mode="before")
    @classmethod
    def _by_teacher(cls, values: Any) -> Any:
        """`engine` may be left out; `teacher` is the first of `teachers` where they are given; an API has no
        distribution, so where one answers `logits` must be asked for."""
        if not isinstance(values, dict):
            return values
        named = values.get("teachers")
        if isinstance(named, dict) and named:
            named = {name: with_engine(teacher) for name, teacher in named.items()}
            first = next(iter(named.values()))
            if "teacher" in values and with_engine(values["teacher"]) != first:
                raise ValueError("give 'teacher' or 'teachers', not both")
            values = {**values, "teachers": named, "teacher": first}
        elif "teacher" in values:
            values = {**values, "teacher": with_engine(values["teacher"])}
        return values if _whole(values) else {"logits": None, **values}

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        everybody = self.teachers or {"": self.teacher}
        for name in speakers(self):
            teacher = everybody[name]
            if self.logits and self.strategy not in ("classify", "embed"):
                refuse_logits(teacher, self.logits, self.strategy == "score" or name in self.logits.score_by)
            refuse_form(teacher, self.generate)
        if self.strategy == "classify" and len(self.generate.labels) < 2:
            raise ValueError("strategy 'classify' needs two or more generate.labels")
        check(self)
        check_targets(self)
        if self.train and not isinstance(self.teacher, LocalTeacher):
            raise ValueError(
                f"train: a student is made from and compared with a teacher in this process, and "
                f"'{self.teacher.engine}' is not; leave out train to make and curate the corpus"
            )
        if self.train:
            refuse_student(self.train, self.strategy, self.logits.kind if self.logits else None)
        return self


def _whole(values: dict[str, Any]) -> bool:
    """Does everybody whose completions become rows show whole distributions? Of a recipe's raw values."""
    named, mixture = values.get("teachers"), values.get("mixture")
    answering = [values.get("teacher")]
    if isinstance(named, dict) and named:
        everybody = values.get("strategy") in ("consensus", "disagreement")
        names = [*named] if everybody else [*mixture] if isinstance(mixture, dict) and mixture else [*named][:1]
        answering = [named.get(name) for name in names]
    return all(not isinstance(t, dict) or t.get("engine") in ("transformers", "vllm") for t in answering)
