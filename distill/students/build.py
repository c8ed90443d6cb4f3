"""Students: stock `transformers` models with some of the teacher's own layers, from a checkpoint, or from a config."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM

from synthgen.errors import RecipeError, missing_extra
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import DecoderStudent, Lora, Seq2SeqStudent

if TYPE_CHECKING:
    from synthgen.teachers.transformers import LocalModel

DEFAULT_LAYERS = 6

_LAYER = re.compile(r"^(.*\blayers?\.)(\d+)(\..*)$")


@dataclass
class Student:
    """`model` as it is trained; `adapter` is the same weights as peft holds them, where low-rank ones are trained."""

    model: Any
    adapter: Any = None


def decoder(student: DecoderStudent, teacher: LocalModel, seed: int) -> Student:
    """The student that a recipe names, before training: the same weights whenever it is called.

    Raises RecipeError for one that cannot be, or whose vocabulary is not the teacher's.
    """
    if student.model is not None:
        from synthgen.lm.load import load_weights

        model, tokenizer, _ = load_weights(TeacherSection(model=student.model))
        check_vocabulary(tokenizer, teacher.tokenizer, student.model)
        model = model.float()
    elif student.config is not None:
        model = from_config(teacher.config, student.config, seed)
    else:
        layers = DEFAULT_LAYERS if student.layers is None else student.layers
        model = from_layers(teacher.model, layer_map(layers, teacher.config.num_hidden_layers))
    model.train()
    return Student(model) if student.lora is None else with_adapter(model, student.lora, seed)


def student_of(
    student: DecoderStudent | Seq2SeqStudent, teacher: LocalModel, seed: int, rows: Sequence[Any] = ()
) -> Student:
    """The student that a recipe names, of either kind, which is to read `rows`. Raises RecipeError."""
    if student.kind == "decoder":
        return decoder(student, teacher, seed)
    from distill.students.seq2seq import seq2seq

    return seq2seq(student, teacher, seed, rows)


def describe(student: DecoderStudent | Seq2SeqStudent, depth: int) -> str:
    """What the student of a teacher of `depth` layers was made from, for cards."""
    if student.kind == "seq2seq":
        return describe_origin(student, "encoder and decoder")
    if student.model is not None:
        made = f"the checkpoint {student.model}"
    elif student.config is not None:
        made = "random weights, the teacher's config but for " + ", ".join(
            f"{k} {v}" for k, v in student.config.items()
        )
    else:
        layers = layer_map(DEFAULT_LAYERS if student.layers is None else student.layers, depth)
        made = f"the teacher's layers {layers}, its embeddings and output"
    return made if student.lora is None else f"{made}; low-rank adapters (r = {student.lora.r}), merged"


def check_vocabulary(tokenizer: Any, teachers: Any, name: str) -> None:
    """Raises RecipeError when a token id does not mean the same to student and teacher."""
    mine, its = tokenizer.get_vocab(), teachers.get_vocab()
    if mine != its:
        other = sum(its.get(token) != place for token, place in mine.items())
        raise RecipeError(
            f"the tokenizer of train.student.model '{name}' gives {other:,} of its {len(mine):,} tokens another "
            "id than the teacher's: the stored distributions mean nothing to it",
            "name a student of the teacher's family, or make one: student.layers or student.config",
        )


def from_config(teachers: Any, changes: dict[str, Any], seed: int, kind: Any = AutoModelForCausalLM) -> Any:
    """A float32 model of random weights whose config is the teacher's with `changes`. Raises RecipeError."""
    values = teachers.to_dict() | {"layer_types": None, "dtype": "float32", "quantization_config": None}
    unknown = sorted(set(changes) - set(values))
    if unknown:
        raise RecipeError(
            f"train.student.config: {teachers.model_type} models have no '{unknown[0]}'",
            "the keys are those of the teacher's config.json",
        )
    values = {key: value for key, value in (values | changes).items() if value is not None or key in changes}
    torch.manual_seed(seed)
    try:
        return kind.from_config(type(teachers).from_dict(values), dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, StrictDataclassError) as error:
        what = str(error.__cause__ or error).splitlines()[0]
        raise RecipeError(f"train.student.config: no such model can be made: {what}", "mend its sizes") from None


def with_adapter(model: Any, lora: Lora, seed: int) -> Student:
    """Freeze `model` and add low-rank weights to its linear layers (LoRA, arXiv 2106.09685). Raises RecipeError."""
    try:
        import peft
    except ImportError:
        raise missing_extra("peft", "train") from None
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.target_modules) if lora.target_modules else "all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        adapter = peft.get_peft_model(model, config)
    except ValueError as error:
        raise RecipeError(f"train.student.lora: {str(error).splitlines()[0]}", "mend target_modules") from None
    return Student(adapter.base_model.model, adapter)


def layer_map(layers: Sequence[int] | int, depth: int) -> list[int]:
    """Teacher layer of each student layer. A number keeps that many, evenly spread, first and last included."""
    if isinstance(layers, int):
        if not 1 <= layers <= depth:
            raise RecipeError(f"train.student.layers is {layers}; the teacher has {depth} layers", "ask for fewer")
        return [round(i * (depth - 1) / max(1, layers - 1)) for i in range(layers)]
    if not layers or any(not 0 <= i < depth for i in layers):
        raise RecipeError(
            f"train.student.layers is {list(layers)}; the teacher has layers 0 to {depth - 1}", "name layers it has"
        )
    return list(layers)


def from_layers(teacher: Any, layers: Sequence[int], kind: Any = AutoModelForCausalLM) -> Any:
    """A float32 model of the teacher's class whose layer i is a copy of the teacher's layer `layers[i]`.

    Everything else (embeddings, norms, output) is copied as it is.
    """
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in layers]
    student = kind.from_config(config, dtype=torch.float32)
    source = dict(teacher.named_parameters())
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            found = _LAYER.match(name)
            origin = f"{found[1]}{layers[int(found[2])]}{found[3]}" if found else name
            parameter.copy_(source[origin])
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
    return student


def random_weights(kind: Any, given: dict[str, Any], tokenizer: Any, more: dict[str, Any]) -> Any:
    """A float32 model of the auto class `kind`, of random weights, with the tokenizer's vocabulary and special tokens.

    `given` is the recipe's train.student.config. Raises RecipeError.
    """
    values = dict(given)
    name = str(values.pop("model_type"))
    try:
        known = AutoConfig.for_model(name)
    except ValueError:
        raise RecipeError(
            f"train.student.config: transformers knows no model_type '{name}'", "give one such as bert or t5"
        ) from None
    allowed = set(known.to_dict()) | set(known.attribute_map)
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise RecipeError(
            f"train.student.config: {name} models have no '{unknown[0]}'", "the keys are those of its config.json"
        )
    special = {key: getattr(tokenizer, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    try:
        config = AutoConfig.for_model(name, **{"vocab_size": len(tokenizer), **special, **more, **values})
        return kind.from_config(config, dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise RecipeError(f"train.student.config: no such model can be made: {reason}", "mend its keys") from None


def describe_origin(student: Any, what: str) -> str:
    """What a student of `model` or `config` was made from, for cards; `what` it is."""
    if student.model is not None:
        return f"{what} from the checkpoint {student.model}"
    return f"{what} of random weights: " + ", ".join(f"{key} {value}" for key, value in student.config.items())
