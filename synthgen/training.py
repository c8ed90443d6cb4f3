"""Sections of the recipe about the student: what it is, how it learns, what is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from synthgen.divergences import Divergence, TargetKind, refusal
from synthgen.errors import nearest
from synthgen.sections import Count, Name, Section, Share

HOW = ("checkpoint_every", "keep_checkpoints", "trackers")
"""Keys of `train` that may change while a student is made: they decide what is kept and shown, not what is learnt."""


class Lora(Section):
    """Low-rank adapters: only they are trained, and they are merged into the weights at the end. Keys as peft's."""

    r: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Share = 0.0
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get one; all linear ones when left out."""


class DecoderStudent(Section):
    """A causal language model: some of the teacher's own layers, a checkpoint, or random weights."""

    kind: Literal["decoder"] = "decoder"
    layers: tuple[int, ...] | int | None = None
    """The teacher's layers to keep, by index; a number keeps that many, spread evenly, first and last included. 6."""
    model: str | None = None
    """A checkpoint with the teacher's tokenizer, named like teacher.model."""
    config: dict[str, Any] | None = None
    """Random weights: the teacher's config.json with these keys changed, such as hidden_size."""
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> DecoderStudent:
        given = [key for key in ("layers", "model", "config") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give at most one of 'layers', 'model' and 'config', not {' and '.join(given)}")
        return self


class ClassifierStudent(Section):
    """An MLP on hashed word and character n-grams; runs on numpy alone."""

    kind: Literal["classifier"] = "classifier"
    buckets: Count = 16384
    hidden: Count = 64
    dropout: Share = 0.3


class RationaleSection(Section):
    """How the rationales of a corpus teach (their answers are taken apart by `generate.answer_marker`)."""

    mode: Literal["then_answer", "step_by_step", "dropped"] = "then_answer"
    """Before the answer; as a task of their own beside the answers (Hsieh et al. 2023); not at all, as a control."""
    weight: Share = 0.5
    """step_by_step: share of the answers' loss."""
    explain: str = "Explain: "
    """step_by_step: goes before a prompt that asks for the rationale."""


class OnlineSection(Section):
    """The teacher is in the loop: its whole distribution is made as it is needed, no stored one is read.

    `teacher` scores the corpus's completions; `on_policy` also those that the student writes itself (GKD, arXiv
    2306.13649); with `mutual` the teacher is trained too, from the student (arXiv 1706.00384), into student/teacher.
    """

    mode: Literal["teacher", "on_policy", "mutual"] = "teacher"
    loss_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of both distributions in the divergence."""
    lmbda: Share | tuple[Share, Share] = 0.5
    """on_policy: how likely the student writes a step's completions; two numbers go from first to last step."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """on_policy: of what the student writes; 0 is greedy."""
    max_new_tokens: Count = 128
    """on_policy: the longest completion that the student may write."""
    reuse: Count = 1
    """on_policy: steps that learn from the same written completions."""
    teacher_kd_weight: Share = 0.5
    """mutual: the teacher's own kd_weight."""

    @model_validator(mode="after")
    def _of_its_mode(self) -> OnlineSection:
        users = dict.fromkeys(("lmbda", "temperature", "max_new_tokens", "reuse"), "on_policy")
        for key, mode in {**users, "teacher_kd_weight": "mutual"}.items():
            if self.mode != mode and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"'{key}' belongs to mode {mode}, and mode is '{self.mode}'")
        return self


def _one_of(student: Section, *keys: str) -> None:
    given = [key for key in keys if getattr(student, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {' and '.join(repr(key) for key in keys)}")


class EncoderStudent(Section):
    """A transformers encoder with a classification head on top, from a checkpoint or of random weights."""

    kind: Literal["encoder"] = "encoder"
    model: str | None = None
    """A checkpoint with its own tokenizer, named like teacher.model; its head is made anew for the recipe's labels."""
    config: dict[str, Any] | None = None
    """Random weights: `model_type`, such as bert, and whichever keys of its config.json are to differ."""
    tokenizer: str | None = None
    """With `config`, whose tokenizer: a hub id or folder; the teacher's when left out."""

    @model_validator(mode="after")
    def _one_origin(self) -> EncoderStudent:
        _one_of(self, "model", "config")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("'config' needs a 'model_type', such as bert")
        if self.model is not None and self.tokenizer is not None:
            raise ValueError("a checkpoint has its own tokenizer: leave out 'tokenizer'")
        return self


class Seq2SeqStudent(Section):
    """An encoder that reads the prompt and a decoder that writes, both in the teacher's tokens."""

    kind: Literal["seq2seq"] = "seq2seq"
    model: str | None = None
    """A checkpoint with the teacher's tokenizer, named like teacher.model."""
    config: dict[str, Any] | None = None
    """Random weights: `model_type`, such as t5, and whichever keys of its config.json are to differ."""

    @model_validator(mode="after")
    def _one_origin(self) -> Seq2SeqStudent:
        _one_of(self, "model", "config")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("'config' needs a 'model_type', such as t5")
        return self


class SentenceStudent(Section):
    """A vector a text: some of the teacher's own layers, a checkpoint, or random weights, pooled as it pools."""

    kind: Literal["sentence"] = "sentence"
    layers: tuple[int, ...] | int | None = None
    """As of a decoder; half of the teacher's when left out."""
    model: str | None = None
    """A checkpoint with its own tokenizer, named like teacher.model."""
    config: dict[str, Any] | None = None
    """Random weights: the teacher's config.json with these keys changed, such as hidden_size."""
    distance: Literal["cosine", "mse"] = "cosine"
    """From the teacher's vector: 1 − cosine, or the mean over the width of squared differences."""

    @model_validator(mode="after")
    def _one_origin(self) -> SentenceStudent:
        given = [key for key in ("layers", "model", "config") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give at most one of 'layers', 'model' and 'config', not {' and '.join(given)}")
        return self


class Ensemble(Section):
    """Distributions of several teachers on the same tokens (logits.score_by), merged into one."""

    teachers: dict[Name, Annotated[float, Field(gt=0)]] | tuple[Name, ...] = ()
    """Names, or names with weights; all that have logits when left out."""
    merge: Literal["mean", "pool"] = "mean"
    """mean: Σ w p. pool: Π p^w, normalised; what averaging the logits gives."""
    by: Literal["uniform", "validation", "agreement"] | None = None
    """Where weights come from: all the same; the highest likelihood of the validation rows; or, row by row, agreement
    with the other teachers. uniform unless weights are given."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.teachers)

    @property
    def weights(self) -> tuple[float, ...] | None:
        return tuple(self.teachers.values()) if isinstance(self.teachers, dict) else None

    @model_validator(mode="after")
    def _meant(self) -> Ensemble:
        if self.weights is not None and self.by is not None:
            raise ValueError(f"teachers have weights already; leave out by: {self.by}, or give their names alone")
        if len(set(self.names)) < len(self.names):
            raise ValueError("a teacher is named twice")
        return self


class Across(Section):
    """A teacher with another tokenizer, which scored these rows' text in a run of its own (strategy score, seeds from
    this corpus with id: id)."""

    run: str
    tokenizer: str | None = None
    """Its tokenizer, a hub id or folder; the scoring model's own when left out."""
    uld_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the distance where the two cut the text in different places."""


class Hidden(Section):
    """Hidden states after some layers are to be the teacher's, token by token, through a learned projection."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    loss: Literal["mse", "cosine"] = "mse"
    """mse: of layer-normalised states. cosine: 1 − cos."""
    layers: Literal["uniform"] | dict[int, int] = "uniform"
    """Student layer → teacher layer, from 0; uniform: every student layer, and the teacher's as deep in proportion."""
    projection: bool = True
    """false: none, where student and teacher are equally wide."""
    stored: bool = False
    """The teacher reads the rows once, before training, and its states are read from RUN/hidden from then on, by other
    students too; 2 bytes a number."""


class Relations(Section):
    """MiniLMv2: how like each other the queries of two tokens are is to be as in the teacher; keys and values too."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    heads: Count | None = None
    """Relation heads that each is cut into, in both models; the teacher's key-value heads when left out."""
    layer: Annotated[int, Field(ge=0)] | None = None
    """The teacher's layer, from 0; the last when left out. The student's is its last."""


Student = DecoderStudent | ClassifierStudent | EncoderStudent | Seq2SeqStudent | SentenceStudent


class TrainSection(Section):
    """How the student learns: kd_weight · divergence from the stored distribution + (1 − kd_weight) · cross-entropy."""

    student: Annotated[Student, Field(discriminator="kind")] = DecoderStudent()
    rationale: RationaleSection | None = None
    kd_weight: Share = 0.9
    """0: the tokens alone teach, and no stored distributions are needed."""
    loss: Divergence = "forward_kl"
    """The divergence; with logits of kind 'sampled', forward_kl alone is defined (and the same as cross_entropy)."""
    beta: Share | None = None
    """jsd: 0 is forward, 1 reverse KL; 0.5 when left out."""
    alpha: Annotated[float, Field(ge=0, lt=1)] | None = None
    """skew_kl, skew_reverse_kl: share of the other distribution mixed in; 0.1 when left out."""
    online: OnlineSection | None = None
    """Learn from the live teacher; no `logits` are needed then."""
    teacher: Name | None = None
    """Whose distributions are learnt from, where several have been stored (logits.score_by). The student is made from
    the recipe's first teacher and compared with it all the same."""
    ensemble: Ensemble | None = None
    across: Across | None = None
    hidden: Hidden | None = None
    """Added to the loss; needs the live teacher, and so costs a pass of it a step."""
    relations: Relations | None = None
    """Likewise."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the training seeds, by a hash of each: how much data is worth (`distill curve`)."""
    epochs: Count = 1
    max_steps: Count | None = None
    batch_size: Count = 16
    """Rows an optimizer step."""
    micro_batch: Count | None = None
    """Rows at once in memory; a step is summed over them, with the same result. All of them when left out."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Share = 0.1
    max_length: Count = 512
    """Rows with more tokens than this (prompt and completion) are left out, and counted."""
    seed: int = 0
    checkpoint_every: Count = 50
    """Steps."""
    keep_checkpoints: Count = 1
    """The newest so many; all go when the student is there."""
    validate_every: Count | None = None
    """Steps between measurements of the loss on the validation split."""
    patience: Count | None = None
    """Stop when so many measurements in a row brought nothing better, and take the best weights."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also report each step to these, through accelerate; what they write lies in the student's folder."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time, the same gradients."""
    baseline: bool = True
    """Also train the same student on cross-entropy alone, on the same batches."""
    dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _meant(self) -> TrainSection:
        if self.patience and not self.validate_every:
            raise ValueError("'patience' counts measurements: set 'validate_every' too")
        if self.online and self.student.kind != "decoder":
            raise ValueError("'online' is for decoders: a classifier learns from the corpus's label probabilities")
        if self.online and self.kd_weight == 0:
            raise ValueError("'online' with kd_weight 0 would never ask the teacher: leave it out")
        for key, users in (("beta", ("jsd",)), ("alpha", ("skew_kl", "skew_reverse_kl"))):
            if getattr(self, key) is not None and self.loss not in users:
                raise ValueError(f"'{key}' belongs to loss {' and '.join(users)}, and loss is '{self.loss}'")
        if self.teacher and self.ensemble:
            raise ValueError("give 'teacher', whose distributions alone are learnt from, or 'ensemble', not both")
        return self

    @model_validator(mode="after")
    def _targets_meant(self) -> TrainSection:
        step_by_step = self.rationale is not None and self.rationale.mode == "step_by_step"
        for key in ("hidden", "relations"):
            if getattr(self, key) and self.student.kind != "decoder":
                raise ValueError(f"'{key}' is about the layers of a decoder")
            if key == "relations" and self.relations and self.hidden and self.hidden.stored:
                raise ValueError("'relations' asks the live teacher in every step: leave out hidden.stored")
            if getattr(self, key) and step_by_step:
                raise ValueError(
                    f"'{key}' and rationale.mode step_by_step do not go together: the teacher does one task"
                )
        for key in ("teacher", "ensemble", "across", "hidden", "relations"):
            if getattr(self, key) and self.online:
                raise ValueError(f"'{key}' goes with stored distributions, and 'online' reads none")
        if self.online and self.rationale and self.rationale.mode != "then_answer":
            raise ValueError("'online' is about whole completions: rationale.mode must be then_answer")
        if self.across and self.rationale:
            raise ValueError("'across' aligns whole completions; leave out 'rationale'")
        if self.across and self.share < 1:
            raise ValueError("'across' takes every row: leave out 'share'")
        if self.across and (self.teacher or self.ensemble):
            raise ValueError("'across' learns from another run's teacher; leave out 'teacher' and 'ensemble'")
        for key in ("teacher", "ensemble", "across"):
            if getattr(self, key) and (self.student.kind not in ("decoder", "seq2seq") or self.kd_weight == 0):
                raise ValueError(f"'{key}' is about stored distributions, and this student learns from none")
        return self


def refuse_student(train: TrainSection, strategy: str, logits: TargetKind | None) -> None:
    """Raises ValueError for a student that cannot learn from what such a recipe makes; `logits` is their kind."""
    wants = train.student.kind
    if (wants == "sentence") != (strategy == "embed"):
        raise ValueError("a student of kind 'sentence' and strategy 'embed' go together")
    if wants in ("classifier", "encoder") and strategy != "classify":
        raise ValueError(f"a student of kind '{wants}' needs strategy 'classify'")
    if wants == "sentence" and train.loss != "forward_kl":
        raise ValueError("train.loss is between distributions; a sentence student has student.distance")
    if wants == "sentence" and train.kd_weight != TrainSection.model_fields["kd_weight"].default:
        raise ValueError("train.kd_weight mixes in labels, and texts of strategy 'embed' have none")
    if wants == "classifier" and train.loss != "forward_kl":
        raise ValueError(f"train.loss '{train.loss}' is for decoders; a classifier learns by forward_kl")
    if wants not in ("decoder", "seq2seq"):
        if train.rationale:
            raise ValueError(f"train.rationale is for students that write, and a {wants} does not")
        return
    if strategy in ("classify", "embed"):
        raise ValueError(f"a {wants} student needs completions, and strategy '{strategy}' makes none")
    dropped = train.rationale is not None and train.rationale.mode == "dropped"
    if logits is None and train.kd_weight > 0 and not (dropped or train.online or train.across):
        raise ValueError(
            f"a {wants} student learns from a 'logits' section's distributions, or train.online's; without them set "
            "train.kd_weight to 0: the tokens alone"
        )
    if train.across:
        logits = "topk"
    if logits and not train.online and (reason := refusal(train.loss, logits)):
        raise ValueError(f"train.loss and logits.kind do not go together: {reason}")


def check_targets(recipe: Any) -> None:
    """Raise ValueError when the section cannot have the distributions it wants. (`recipe` is a Recipe.)"""
    train, kept = recipe.train, recipe.logits
    if train is None or kept is None or train.online or train.kd_weight == 0:
        return
    if train.student.kind not in ("decoder", "seq2seq"):
        return
    there = [*(recipe.mixture or list(recipe.teachers)[:1]), *kept.score_by]
    several = len(recipe.mixture) > 1 or recipe.strategy in ("consensus", "disagreement")
    if several or (kept.score_by and not (train.teacher or train.ensemble or train.across)):
        how = "leave 'train' out" if several else "name one in train.teacher, or merge them: train.ensemble"
        raise ValueError(f"a {train.student.kind} student learns from the logits of one teacher; {how}")
    named = [("train.teacher", train.teacher)] if train.teacher else []
    ensemble = train.ensemble
    if ensemble:
        named = [("train.ensemble.teachers", name) for name in ensemble.names]
    for key, name in named:
        if name not in there:
            raise ValueError(f"{key} names '{name}', whose logits are not stored{nearest(name, there)}")
    if not ensemble:
        return
    count = len(ensemble.names or there)
    if count < 2:
        raise ValueError("train.ensemble is of two or more teachers; add others to logits.score_by")
    if ensemble.by == "agreement" and count < 3:
        raise ValueError(
            "train.ensemble.by: of two teachers each agrees with the other as much; name three, or uniform"
        )
    if ensemble.by == "validation" and not recipe.split.validation:
        raise ValueError("train.ensemble.by is 'validation': set split.validation, so that there are such rows")
    if kept.kind == "sampled":
        if ensemble.merge == "pool":
            raise ValueError(
                "train.ensemble.merge: a pool is not linear in the probabilities, so draws in their place are biased, "
                "and an id that one teacher never drew would end it; use merge: mean, or logits.kind: topk"
            )
        if ensemble.by in ("validation", "agreement"):
            raise ValueError(
                f"train.ensemble.by is '{ensemble.by}': it needs probabilities, and draws give most of them as zero; "
                "use uniform, give weights, or logits.kind: topk"
            )


class EvaluateSection(Section):
    """What is measured on the held-out split."""

    max_rows: Count | None = None
    """Rows for the full-vocabulary comparison."""
    max_prompts: Count | None = None
    """Prompts answered greedily for accuracy and speed."""
    max_new_tokens: Count = 64
    seed: int = 0
