"""The recipe: one YAML file that says what a run is. Validated, frozen, unknown keys refused.

    recipe = load_recipe("prompts/reasoning/recipe.yaml")     # or just "reasoning" for a shipped task

Relative paths in a recipe are relative to its own folder. `RUN/recipe.yaml` is the resolved recipe (paths
absolute, defaults written out): that file alone repeats the run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from synthgen.errors import RecipeError
from synthgen.explain import explain, parse
from synthgen.sections import (
    AnyTeacher,
    Budget,
    Count,
    LocalTeacher,
    Name,
    ReplayTeacher,
    Section,
    Share,
    TeacherSection,
    VllmTeacher,
    refuse_form,
    refuse_logits,
    with_engine,
)
from synthgen.steps import StepsSection, Strategy, check, speakers
from synthgen.training import HOW, EvaluateSection, TrainSection, check_targets, refuse_student


class SeedSource(Section):
    """Where seeds come from and under whose terms. Exactly one of `path` and `dataset`."""

    path: str | None = None
    """JSONL, CSV or Parquet file, or a folder of them."""
    dataset: str | None = None
    """Hugging Face dataset id, or a dataset's folder; streamed."""
    config: str | None = None
    dataset_split: str = "train"
    revision: str | None = None
    licence: str
    """SPDX id or a key of data/licences.yaml; 'unknown' is allowed, and audited as unknown."""
    source: str
    """Name or address of where the seeds were published."""
    id: str | None = None
    """Column with a stable id; without it the id is a hash of the row."""
    group: str | None = None
    """Column whose equal values stay on one side of the split; without it, the text with names and numbers masked."""
    reference: str | None = None
    """Column with the known right answer."""
    fields: dict[str, str] = Field({})
    """Template variable -> column, where they differ."""
    limit: Count | None = None
    on_bad_line: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _one_place(self) -> SeedSource:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give exactly one of 'path' and 'dataset'")
        return self


class Split(Section):
    """Shares of seed groups held out; a group is never on two sides."""

    validation: Share = 0.0
    test: Share = 0.2
    seed: int = 0

    @model_validator(mode="after")
    def _at_most_all(self) -> Split:
        if self.validation + self.test > 1:
            raise ValueError(f"validation {self.validation} and test {self.test} are more than the whole")
        return self


class GenerateSection(Section):
    """How it is asked."""

    samples: Count = 1
    """Completions for each seed."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 256
    seed: int = 0
    shard_size: Count = 256
    """Requests a shard; a shard commits whole."""
    answer_marker: str | None = None
    """Text before it is the rationale, the line after it the answer."""
    labels: tuple[str, ...] = ()
    """Strategy 'classify': the classes, as the teacher would say them."""
    json_schema: dict[str, Any] | None = None
    """The answer must be JSON of this schema; for teachers that can be held to one."""
    regex: str | None = None
    """The answer must match this whole pattern; for teachers that can be held to one."""
    budget: Budget | None = None
    max_failures: Annotated[str | int, Field(union_mode="left_to_right")] | None = None
    """Stop when more requests than this have failed: a number, or a share of all: "5%"."""

    @field_validator("max_failures")
    @classmethod
    def _count_or_percent(cls, value: str | int | None) -> str | int | None:
        text = str(0 if value is None else value)
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = -1.0
        share = text.endswith("%")
        if number < 0 or (share and number > 100) or not (share or text.isdigit()):
            raise ValueError('give a number of rows, or a share of all like "5%"')
        return value

    @field_validator("json_schema")
    @classmethod
    def _schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import validator_for

            try:
                validator_for(value).check_schema(value)
            except SchemaError as error:
                raise ValueError(f"not a JSON schema: {error.message}") from None
        return value

    @field_validator("regex")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a pattern: {error}") from None
        return value

    @model_validator(mode="after")
    def _one_form(self) -> GenerateSection:
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("give at most one of 'json_schema' and 'regex'")
        return self


class LogitsSection(Section):
    """Which part of the teacher's distribution is kept beside each row."""

    kind: Literal["sampled", "topk"] = "sampled"
    draws: Annotated[int, Field(ge=1, le=65535)] = 50
    k: Count = 64
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the distillation loss: draws are taken, or the normaliser stored, at it."""
    score_by: tuple[str, ...] = ()
    """Further teachers that give their distributions on the same tokens, each in a folder of its own."""

    def spec(self) -> dict[str, Any]:
        """What the shards' metadata says: kind, its size, temperature."""
        size = {"draws": self.draws} if self.kind == "sampled" else {"k": self.k}
        return {"kind": self.kind, **size, "temperature": self.temperature}


class CurateSection(Section):
    """Checks; null or false switches one off. Thresholds are of the score the check writes."""

    answer: bool = True
    """Drop rows whose answer does not match the reference (rows without a reference pass)."""
    min_words: int | None = 1
    max_words: int | None = 1000
    repetition: Share | None = 0.3
    """Largest allowed share of 4-word sequences that occurred before in the same completion."""
    refusal: bool = True
    truncated: bool = True
    duplicates: bool = True
    """Drop later copies of the same prompt with the same completion, whitespace and case aside."""


class AuditSection(Section):
    """The intended use that the audit judges."""

    use: Literal["research", "commercial"] = "commercial"
    actions: tuple[Literal["train", "share_data", "release_weights", "serve"], ...] = (
        "train",
        "share_data",
        "release_weights",
    )
    competes: Literal["yes", "no", "unknown"] = "unknown"
    """Whether the student competes with the teacher's provider."""
    student_family: str = ""
    """Model family of the student, for terms that allow training only within their own."""
    student_name: str = ""


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


def with_limits(recipe: Recipe, usd: float | None, max_failures: str | None) -> Recipe:
    """The recipe with another budget in dollars and another bound on failures. Raises RecipeError."""
    values = recipe.generate.model_dump()
    if usd is not None:
        values["budget"] = {**(values["budget"] or {}), "usd": usd}
    if max_failures is not None:
        values["max_failures"] = max_failures
    try:
        return recipe.model_copy(update={"generate": GenerateSection.model_validate(values)})
    except ValidationError as error:
        problem = error.errors()[0]
        raise RecipeError(f"{problem['loc'][0]}: {problem['msg']}", "see synthgen generate --help") from None


def local_teacher(recipe: Recipe) -> TeacherSection:
    """The teacher as `transformers` loads it, where its layers or its whole distribution are wanted.

    Raises RecipeError for one behind a wire."""
    teacher = recipe.teacher
    if isinstance(teacher, VllmTeacher):
        dtype = "float32" if teacher.dtype == "auto" else teacher.dtype
        return TeacherSection(model=teacher.model, revision=teacher.revision, licence=teacher.licence, dtype=dtype)
    if not isinstance(teacher, TeacherSection):
        raise RecipeError(f"teacher.engine is '{teacher.engine}'; this needs a teacher in this process")
    return teacher


def _whole(values: dict[str, Any]) -> bool:
    """Does everybody whose completions become rows show whole distributions? Of a recipe's raw values."""
    named, mixture = values.get("teachers"), values.get("mixture")
    answering = [values.get("teacher")]
    if isinstance(named, dict) and named:
        everybody = values.get("strategy") in ("consensus", "disagreement")
        names = [*named] if everybody else [*mixture] if isinstance(mixture, dict) and mixture else [*named][:1]
        answering = [named.get(name) for name in names]
    return all(not isinstance(t, dict) or t.get("engine") in ("transformers", "vllm") for t in answering)


def shipped(kind: Literal["prompts", "data"]) -> Path:
    """The folder that travels with the package: inside it in a wheel, beside it in a checkout."""
    inside = Path(__file__).parent / kind
    return inside if inside.is_dir() else Path(__file__).parent.parent / kind


def find_recipe(name: str | Path) -> Path:
    """Path of a recipe: a file, a folder with recipe.yaml, or the name of a shipped task."""
    path = Path(name)
    for candidate in (path, path / "recipe.yaml", shipped("prompts") / path / "recipe.yaml"):
        if candidate.is_file():
            return candidate
    tasks = sorted(p.parent.name for p in shipped("prompts").glob("*/recipe.yaml"))
    raise RecipeError(f"no recipe at '{name}'", f"give a YAML file, or one of the shipped tasks: {', '.join(tasks)}")


def load_recipe(name: str | Path) -> Recipe:
    """Read, validate and resolve a recipe. Raises RecipeError naming the line and key."""
    path = find_recipe(name)
    node, values = parse(path)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values", "see prompts/README.md for one")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(*explain(path, node, error, Recipe)) from None
    return _resolve(recipe, path.parent.resolve())


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    values = recipe.model_dump(mode="json")
    return "# Resolved recipe: `synthgen run` on this file repeats the run.\n" + yaml.safe_dump(
        values, sort_keys=False, allow_unicode=True
    )


# What may change while a run goes on: it decides how fast, how patiently and for how much, not what is made.
_HOW = {
    "teacher": (
        *("api_key_env", "rpm", "tpm", "max_in_flight", "timeout", "attempts"),
        *("tensor_parallel", "data_parallel", "memory_fraction", "max_num_seqs"),
    ),
    "generate": ("budget", "max_failures"),
    "train": HOW,
}


def deciding(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values that decide what is made."""
    values = recipe.model_dump(mode="json")
    for section, keys in _HOW.items():
        if values[section] is None:
            continue
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    values["teachers"] = {
        name: {key: value for key, value in teacher.items() if key not in _HOW["teacher"]}
        for name, teacher in values["teachers"].items()
    }
    return values


def _resolve(recipe: Recipe, base: Path) -> Recipe:
    def place(name: str) -> str:
        return str((base / Path(name).expanduser()).resolve())

    def place_of(name: str | None) -> str | None:  # a hub id never begins so
        return place(name) if name and name.startswith((".", "/", "~")) else name

    seeds = tuple(
        s.model_copy(update={"path": place(s.path) if s.path else None, "dataset": place_of(s.dataset)})
        for s in recipe.seeds
    )

    def placed(teacher: AnyTeacher) -> AnyTeacher:
        places = {key: place_of(getattr(teacher, key, None)) for key in ("model", "tokenizer")}
        if isinstance(teacher, ReplayTeacher):
            places = {"path": place(teacher.path)}
        return teacher.model_copy(update={key: value for key, value in places.items() if value})

    train = recipe.train
    if train:
        places = {key: place_of(getattr(train.student, key, None)) for key in ("model", "tokenizer")}
        student = train.student.model_copy(update={key: value for key, value in places.items() if value})
        train = train.model_copy(update={"student": student})
    if train and train.across:
        across = train.across.model_copy(
            update={"run": place(train.across.run), "tokenizer": place_of(train.across.tokenizer)}
        )
        train = train.model_copy(update={"across": across})
    return recipe.model_copy(
        update={
            "train": train,
            "seeds": seeds,
            "prompts": place(recipe.prompts),
            "teacher": placed(recipe.teacher),
            "teachers": {name: placed(teacher) for name, teacher in recipe.teachers.items()},
        }
    )


_FREE = ("config", "extra", "json_schema", "fields")
"""Mappings whose keys are not ours: there, a key that is missing means what somebody else says it means."""


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "", free: bool = False) -> list[str]:
    """'key: old → new' for every leaf that differs; a list's entries are numbered.

    A key that one side does not know, and that is off on the other (null, false, empty), is no difference: an older
    version wrote that side, and did what the newer does without it. Not so where keys are not ours (`_FREE`).
    """
    found: list[str] = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if (
            not free
            and not (key in old and key in new)
            and all(value is False or value in (None, "", [], {}) for value in (a, b))
        ):
            continue
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            a, b = ({str(place): value for place, value in enumerate(side)} for side in (a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.", free or key in _FREE)
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} → {b!r}")
    return found
