"""The recipe: one YAML file that says what a run is. Validated, frozen, unknown keys refused.

    recipe = load_recipe("prompts/reasoning/recipe.yaml")     # or just "reasoning" for a shipped task

Relative paths in a recipe are relative to its own folder. `RUN/recipe.yaml` is the resolved recipe (paths
absolute, defaults written out): that file alone repeats the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from synthgen.errors import RecipeError
from synthgen.explain import explain, parse

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class SeedSource(_Section):
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
    fields: dict[str, str] = {}
    """Template variable -> column, where they differ."""
    limit: Count | None = None
    on_bad_line: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _one_place(self) -> SeedSource:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give exactly one of 'path' and 'dataset'")
        return self


class Split(_Section):
    """Shares of seed groups held out; a group is never on two sides."""

    validation: Share = 0.0
    test: Share = 0.2
    seed: int = 0

    @model_validator(mode="after")
    def _at_most_all(self) -> Split:
        if self.validation + self.test > 1:
            raise ValueError(f"validation {self.validation} and test {self.test} are more than the whole")
        return self


class TeacherSection(_Section):
    """Who is asked."""

    engine: Literal["transformers"] = "transformers"
    model: str
    """Hub id, folder, .gguf file, or package:NAME[/FILE] for a GGUF inside an installed package."""
    revision: str | None = None
    licence: str = "unknown"
    """Terms of the teacher: SPDX id or a key of data/licences.yaml."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    batch_size: Count = 64


class VllmTeacher(_Section):
    """A model that vLLM runs in this process: one GPU, all GPUs of the machine, or the CPU."""

    engine: Literal["vllm"]
    model: str
    """As of the 'transformers' teacher."""
    revision: str | None = None
    licence: str = "unknown"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """'auto' is the checkpoint's own."""
    tensor_parallel: Count = 1
    """GPUs that one copy of the model is cut over."""
    data_parallel: Count = 1
    """Copies of the model."""
    quantization: str | None = None
    """vLLM's name of the method; the checkpoint's own unless given."""
    memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of each GPU's memory; leave room for the log-probabilities of long prompts when you score."""
    max_model_len: Count | None = None
    """Tokens of prompt and completion; the model's own limit unless given."""
    max_num_seqs: Count | None = None
    """Rows that one copy writes at once; vLLM's own choice unless given."""


AnyTeacher = Annotated[TeacherSection | VllmTeacher, Field(discriminator="engine")]


class GenerateSection(_Section):
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

    @model_validator(mode="after")
    def _one_form(self) -> GenerateSection:
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("give at most one of 'json_schema' and 'regex'")
        return self


class LogitsSection(_Section):
    """Which part of the teacher's distribution is kept beside each row."""

    kind: Literal["sampled", "topk"] = "sampled"
    draws: Annotated[int, Field(ge=1, le=65535)] = 50
    k: Count = 64
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the distillation loss: draws are taken, or the normaliser stored, at it."""

    def spec(self) -> dict[str, Any]:
        """What the shards' metadata says: kind, its size, temperature."""
        size = {"draws": self.draws} if self.kind == "sampled" else {"k": self.k}
        return {"kind": self.kind, **size, "temperature": self.temperature}


class CurateSection(_Section):
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


class AuditSection(_Section):
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


class DecoderStudent(_Section):
    """A causal language model made from the teacher's own layers."""

    kind: Literal["decoder"] = "decoder"
    layers: tuple[int, ...] | int = 6
    """The teacher's layers to keep, by index; a number keeps that many, spread evenly, first and last included."""


class ClassifierStudent(_Section):
    """An MLP on hashed word and character n-grams; runs on numpy alone."""

    kind: Literal["classifier"] = "classifier"
    buckets: Count = 16384
    hidden: Count = 64
    dropout: Share = 0.3


class TrainSection(_Section):
    """How the student learns. Loss = kd_weight · KL to the stored distribution + (1 − kd_weight) · cross-entropy."""

    student: Annotated[DecoderStudent | ClassifierStudent, Field(discriminator="kind")] = DecoderStudent()
    kd_weight: Share = 0.9
    epochs: Count = 1
    max_steps: Count | None = None
    batch_size: Count = 16
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Share = 0.1
    max_length: Count = 512
    """Rows with more tokens than this (prompt and completion) are left out, and counted."""
    seed: int = 0
    checkpoint_every: Count = 50
    baseline: bool = True
    """Also train the same student on cross-entropy alone, on the same batches."""
    dtype: Literal["float32", "bfloat16"] = "float32"


class EvaluateSection(_Section):
    """What is measured on the held-out split."""

    max_rows: Count | None = None
    """Rows for the full-vocabulary comparison."""
    max_prompts: Count | None = None
    """Prompts answered greedily for accuracy and speed."""
    max_new_tokens: Count = 64
    seed: int = 0


class Recipe(_Section):
    """One task, its corpus, one student."""

    task: str
    """Name of the run's task; also the folder under prompts/ unless `prompts` says otherwise."""
    description: str = ""
    strategy: Literal["answer", "rationale", "classify"] = "answer"
    seeds: tuple[SeedSource, ...] = Field(min_length=1)
    prompts: str = "."
    """Folder with the templates."""
    split: Split = Split()
    teacher: AnyTeacher
    generate: GenerateSection = GenerateSection()
    logits: LogitsSection | None = LogitsSection()
    curate: CurateSection = CurateSection()
    audit: AuditSection = AuditSection()
    train: TrainSection | None = None
    evaluate: EvaluateSection = EvaluateSection()

    @model_validator(mode="before")
    @classmethod
    def _by_teacher(cls, values: Any) -> Any:
        """`engine` may be left out."""
        teacher = values.get("teacher") if isinstance(values, dict) else None
        return {**values, "teacher": {"engine": "transformers", **teacher}} if isinstance(teacher, dict) else values

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.strategy == "classify" and len(self.generate.labels) < 2:
            raise ValueError("strategy 'classify' needs two or more generate.labels")
        if self.strategy == "rationale" and not self.generate.answer_marker:
            raise ValueError("strategy 'rationale' needs generate.answer_marker")
        for key in ("json_schema", "regex"):
            if getattr(self.generate, key) is not None and self.teacher.engine != "vllm":
                raise ValueError(f"generate.{key}: the '{self.teacher.engine}' teacher cannot be held to a form")
        wants = self.train.student.kind if self.train else None
        if wants == "classifier" and self.strategy != "classify":
            raise ValueError("a classifier student needs strategy 'classify'")
        if wants == "decoder" and (self.strategy == "classify" or self.logits is None):
            raise ValueError("a decoder student needs sampled completions and a 'logits' section")
        return self


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


def local_teacher(recipe: Recipe) -> TeacherSection:
    """The recipe's teacher as `transformers` loads it, where its layers or its whole distribution are wanted."""
    teacher = recipe.teacher
    if isinstance(teacher, TeacherSection):
        return teacher
    dtype = "float32" if teacher.dtype == "auto" else teacher.dtype
    return TeacherSection(model=teacher.model, revision=teacher.revision, licence=teacher.licence, dtype=dtype)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    values = recipe.model_dump(mode="json")
    return "# Resolved recipe: `synthgen run` on this file repeats the run.\n" + yaml.safe_dump(
        values, sort_keys=False, allow_unicode=True
    )


def _resolve(recipe: Recipe, base: Path) -> Recipe:
    def place(name: str) -> str:
        return str((base / Path(name).expanduser()).resolve())

    def place_of(name: str | None) -> str | None:  # a hub id never begins so
        return place(name) if name and name.startswith((".", "/", "~")) else name

    seeds = tuple(
        s.model_copy(update={"path": place(s.path) if s.path else None, "dataset": place_of(s.dataset)})
        for s in recipe.seeds
    )
    teacher = recipe.teacher.model_copy(update={"model": place_of(recipe.teacher.model)})
    return recipe.model_copy(update={"seeds": seeds, "prompts": place(recipe.prompts), "teacher": teacher})


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """'key: old → new' for every leaf that differs."""
    found: list[str] = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} → {b!r}")
    return found
