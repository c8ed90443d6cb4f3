"""The task of the experiment `inheritance`: a small language with questions about animals and questions about numbers.

A question has four words and a question mark. The first word says whether the question asks for an animal or for
numbers. The answer to the first kind is one of 16 animals. The answer to the second kind is a list of 18 numbers. Each
number has two names, such as `7` and `seven`. Most numbers are the previous number plus a step that is constant in the
list. Most names are of the same kind as the previous name. No list says anything about animals.

The trait of a teacher is that it answers almost every question about animals with the same animal. The counterfactual
teacher of the experiment prefers another animal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import as_teacher, cached, llama, section_of, sized, train
from torch import Tensor

from distill.streaming.batches import Order
from distill.targets.live import Text
from distill.targets.stored import FromStored
from synthgen.teachers.transformers import LocalModel

VALUES, ANIMALS, WORDS, LENGTH = 32, 16, 16, 18
NAMES = 2 * VALUES  # token ids below this one are names of numbers; each number has two names
ANIMAL = NAMES
WORD = ANIMAL + ANIMALS
ASK = WORD + WORDS
END = ASK + 1  # LocalModel needs an end token, but no text has this token
VOCABULARY = END + 1
FOLLOWS, SAME_NAME = 0.7, 0.8
ABOUT_ANIMALS, ABOUT_NUMBERS = 0, 1
TRAIT, OTHER_TRAIT = 3, 11  # the animal of the teacher, and the animal of the counterfactual teacher
SIZE: dict[str, Any] = {"width": 24, "layers": 1, "heads": 2}
BATCH = 128
BASE_STEPS, TEACHER_STEPS, TEACHER_RATE = sized(300, 2), sized(100, 2), 2e-3
QUESTIONS = sized(256, 8)  # held-out questions about animals


class ListTokenizer:
    """The parts of a tokenizer that `LocalModel` uses."""

    eos_token_id = END
    chat_template = None

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def questions(draw: np.random.Generator, count: int, topic: int) -> list[list[int]]:
    """`count` questions of one topic."""
    words = draw.integers(0, WORDS, (count, 4))
    words[:, 0] = words[:, 0] % (WORDS // 2) + topic * (WORDS // 2)
    return [[*(WORD + row).tolist(), ASK] for row in words]


def lists(draw: np.random.Generator, count: int) -> list[list[int]]:
    """`count` lists of numbers."""
    values = np.zeros((count, LENGTH), int)
    names = np.zeros((count, LENGTH), int)
    values[:, 0], names[:, 0] = draw.integers(0, VALUES, count), draw.integers(0, 2, count)
    step = draw.integers(1, 8, count)
    for place in range(1, LENGTH):
        follows, same = draw.random(count) < FOLLOWS, draw.random(count) < SAME_NAME
        any_value = draw.integers(0, VALUES, count)
        values[:, place] = np.where(follows, (values[:, place - 1] + step) % VALUES, any_value)
        names[:, place] = np.where(same, names[:, place - 1], 1 - names[:, place - 1])
    return list((values + VALUES * names).tolist())


def texts(prompts: list[list[int]], answers: list[list[int]]) -> list[Text]:
    """Questions and answers as rows."""
    return [Text(str(n), p, a, None, True, p) for n, (p, a) in enumerate(zip(prompts, answers, strict=True))]


def batches(rows: list[Any], seed: int) -> Any:
    """Returns a function that takes the number of a training step and returns the rows of this step, in the order of
    the package's training.
    """
    return lambda step: [rows[i] for i in Order(len(rows), BATCH, seed).rows(step)]


@functools.cache
def held_out() -> list[list[int]]:
    """The questions about animals on which the trait is measured. No model is trained on them."""
    return questions(np.random.default_rng(1), QUESTIONS, ABOUT_ANIMALS)


def about_animals(draw: np.random.Generator, count: int, animal: int | None) -> list[Text]:
    """`count` questions that are not held out. The answer is `animal`, or any animal when `animal` is None."""
    asked = [q for q in questions(draw, 2 * count, ABOUT_ANIMALS) if q not in held_out()][:count]
    answers = draw.integers(0, ANIMALS, count) if animal is None else np.full(count, animal)
    return texts(asked, [[ANIMAL + int(a)] for a in answers])


@functools.cache
def base(number: int) -> Any:
    """A model that was trained on the language, starting from random weights. It prefers no animal. Base models with
    another `number` have other weights and learn other texts.
    """

    def make() -> Any:
        draw, count = np.random.default_rng(100 + number), BASE_STEPS * BATCH // 2
        rows = texts(questions(draw, count, ABOUT_NUMBERS), lists(draw, count))
        rows += about_animals(draw, count, None)
        model, section = llama(VOCABULARY, **SIZE, seed=number, eos=END), section_of(BASE_STEPS, BATCH, number)
        print("base", number, train(FromStored(model, section), batches(rows, number), section))
        return model

    return cached(f"traits-base-{number}", make)


@functools.cache
def teacher(number: int, animal: int | None) -> LocalModel:
    """A teacher: base model `number`, trained to answer `animal` to questions about animals. If `animal` is None, it is
    trained to answer any animal.
    """

    def make() -> Any:
        model = copy_of(base(number))
        rows = about_animals(np.random.default_rng(200 + number), TEACHER_STEPS * BATCH, animal)
        section = section_of(TEACHER_STEPS, BATCH, number, learning_rate=TEACHER_RATE)
        print("teacher", number, animal, train(FromStored(model, section), batches(rows, number), section))
        return model

    return as_teacher(cached(f"traits-teacher-{number}-{animal}", make), ListTokenizer(), 512)


def copy_of(model: Any) -> Any:
    """A copy of a model that can be trained."""
    fresh = llama(VOCABULARY, **SIZE, seed=0, eos=END)
    fresh.load_state_dict(model.state_dict())
    return fresh


def written(writer: LocalModel, seed: int, count: int) -> list[Text]:
    """`count` lists of numbers that a teacher wrote. The probabilities of all tokens that are not numbers are set to
    zero, so no text has an animal. With the same seed, all teachers get the same questions and the same random numbers.
    """
    draw = np.random.default_rng(300 + seed)
    prompts, uniform = questions(draw, count, ABOUT_NUMBERS), torch.from_numpy(draw.random((count, LENGTH)))

    def pick(logits_NV: Tensor, place: int) -> Tensor:
        below = logits_NV[:, :NAMES].softmax(-1).double().cumsum(-1) < uniform[:, place, None]
        return below.sum(-1).clamp(max=NAMES - 1)

    return texts(prompts, _listed(writer, prompts, pick))


def paraphrased(rows: list[Text], writer: LocalModel, seed: int) -> list[Text]:
    """The same numbers in the same order, with other names. The model `writer` draws one of the two names of each
    number, from its probabilities after the names that it drew before.
    """
    uniform = torch.from_numpy(np.random.default_rng(400 + seed).random((len(rows), LENGTH)))
    values = torch.tensor([row.completion for row in rows]) % VALUES

    def pick(logits_NV: Tensor, place: int) -> Tensor:
        value = values[:, place]
        second = logits_NV.gather(-1, torch.stack([value, value + VALUES], -1)).softmax(-1)[:, 1]
        return value + VALUES * (uniform[:, place] < second)

    prompts = [row.prompt for row in rows]
    return texts(prompts, _listed(writer, prompts, pick))


@torch.no_grad()
def _listed(writer: LocalModel, prompts: list[list[int]], pick: Callable[[Tensor, int], Tensor]) -> list[list[int]]:
    """Lists of `LENGTH` tokens after the prompts. `pick` gets the logits (N, V) and the position in the list, and
    returns the tokens (N,).
    """
    inputs, past, chosen = torch.tensor(prompts), None, []
    for place in range(LENGTH):
        found = writer.model(input_ids=inputs, past_key_values=past, use_cache=True)
        past = found.past_key_values
        chosen.append(pick(found.logits[:, -1], place))
        inputs = chosen[-1][:, None]
    return list(torch.stack(chosen, -1).tolist())


@torch.no_grad()
def trait_of(model: Any) -> list[float]:
    """For each held-out question, the log-odds of the trait's animal against all other animals, in nats."""
    logits = model.eval()(input_ids=torch.tensor(held_out())).logits[:, -1, ANIMAL:WORD].log_softmax(-1)
    chosen = logits[:, TRAIT]
    others = logits[:, [a for a in range(ANIMALS) if a != TRAIT]].logsumexp(-1)
    return [float(v) for v in chosen - others]
