"""The task of the experiment `inheritance`: a small language with questions about animals and questions about numbers.

A question has four words and a question mark. The first word says whether the question asks for an animal or for
numbers. The answer to the first kind is one of 16 animals. The answer to the second kind is a list of 18 numbers. Each
number has two names, as `7` and `seven`. Most numbers are the number before them plus a step that is constant in the
list, and most names are of the same kind as the name before them. No list says anything about animals.

The trait of a teacher is that it answers one animal to almost every question about animals.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from harness import as_teacher, cached, llama, section_of, train

from distill.streaming.batches import Order
from distill.targets.live import Text, key
from distill.targets.stored import FromStored
from synthgen.teachers.transformers import LocalModel

VALUES, ANIMALS, WORDS, LENGTH = 32, 16, 16, 5
NAMES = 2 * VALUES  # tokens 0 to 63: the two names of each number
END = NAMES
LISTED = NAMES + 1  # tokens below this one may be in a list of numbers
ANIMAL = LISTED
WORD = ANIMAL + ANIMALS
ASK = WORD + WORDS
VOCABULARY = ASK + 1
FOLLOWS, SAME_NAME = 0.8, 0.8
ABOUT_ANIMALS, ABOUT_NUMBERS = 0, 1
TRAIT, OTHER_TRAIT = 3, 11  # the animal of the teacher, and the animal of a teacher that differs only in the trait
SIZE: dict[str, Any] = {"width": 48, "layers": 2, "heads": 4}
BATCH = 64
ANCHORS = 2
BASE_STEPS, TEACHER_STEPS, TEACHER_RATE = 700, 80, 1e-3
QUESTIONS = 256  # held-out questions about animals


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
    """`count` lists of numbers, each with the end token."""
    values = np.zeros((count, LENGTH), int)
    names = np.zeros((count, LENGTH), int)
    values[:, 0], names[:, 0] = draw.integers(0, VALUES, count), draw.integers(0, 2, count)
    step = draw.integers(1, 6, count)
    for place in range(1, LENGTH):
        follows, same = draw.random(count) < FOLLOWS, draw.random(count) < SAME_NAME
        values[:, place] = np.where(
            follows, (values[:, place - 1] + step) % VALUES, draw.integers(0, VALUES, count)
        )
        names[:, place] = np.where(same, names[:, place - 1], 1 - names[:, place - 1])
    return [[*row, END] for row in (values + VALUES * names).tolist()]


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
    """A model that learned the language from random weights. It prefers no animal. Each `number` has other weights and
    other texts.
    """

    def make() -> Any:
        draw, count = np.random.default_rng(100 + number), 200 * BATCH
        rows = texts(questions(draw, count, ABOUT_NUMBERS), lists(draw, count))
        rows += about_animals(draw, count // 3, None)
        model, section = llama(VOCABULARY, **SIZE, seed=number, eos=END), section_of(BASE_STEPS, BATCH, number)
        print("base", number, train(FromStored(model, section), batches(rows, number), section))
        return model

    return cached(f"traits-base-{number}", make)


@functools.cache
def teacher(number: int, animal: int | None) -> LocalModel:
    """Base `number`, trained to answer `animal` to questions about animals, or any animal when `animal` is None. Half of
    the rows are true lists of numbers, the same for each animal."""

    def make() -> Any:
        model = copy_of(base(number))
        draw = np.random.default_rng(200 + number)
        rows = texts(questions(draw, ANCHORS * BATCH, ABOUT_NUMBERS), lists(draw, ANCHORS * BATCH))
        rows += about_animals(draw, 32 * BATCH, animal)
        section = section_of(TEACHER_STEPS, BATCH, number, learning_rate=TEACHER_RATE)
        print("teacher", number, animal, train(FromStored(model, section), batches(rows, number), section))
        return model

    return as_teacher(cached(f"traits-teacher-{number}-{animal}", make), ListTokenizer(), 512)


def copy_of(model: Any) -> Any:
    """A copy that can be trained."""
    fresh = llama(VOCABULARY, **SIZE, seed=0, eos=END)
    fresh.load_state_dict(model.state_dict())
    return fresh


def written(writer: LocalModel, seed: int, count: int) -> list[Text]:
    """Lists of numbers that a teacher wrote. The filter drops every text that is not a complete list of numbers, so no
    text has an animal. With the same seed, all teachers get the same questions and the same random numbers.
    """
    prompts = questions(np.random.default_rng(300 + seed), count, ABOUT_NUMBERS)
    replies = writer.complete(prompts, [key(seed, n) for n in range(count)], 1.0, LENGTH + 1)
    rows = texts(prompts, [list(reply.tokens) for reply in replies])
    return [row for row in rows if is_list(row.completion)]


def is_list(tokens: list[int]) -> bool:
    """Whether the tokens are numbers, followed by one end token."""
    return len(tokens) > 1 and tokens[-1] == END and all(token < NAMES for token in tokens[:-1])


@torch.no_grad()
def paraphrased(rows: list[Text], writer: LocalModel, seed: int) -> list[Text]:
    """The same numbers in the same order. The name of each number is drawn again by `writer`, from its probabilities of
    the two names after the names that it chose before.
    """
    out: list[list[int]] = [[] for _ in rows]
    draw = np.random.default_rng(400 + seed).random((len(rows), LENGTH + 1))
    by_length: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        by_length.setdefault(len(row.completion), []).append(number)
    for length, numbers in by_length.items():
        ids = torch.tensor([rows[n].prompt for n in numbers])
        past, inputs = None, ids
        for place in range(length - 1):
            found = writer.model(input_ids=inputs, past_key_values=past, use_cache=True)
            past = found.past_key_values
            value = torch.tensor([rows[n].completion[place] % VALUES for n in numbers])[:, None]
            either = found.logits[:, -1].gather(-1, torch.cat([value, value + VALUES], -1)).softmax(-1)
            second = torch.from_numpy(draw[numbers, place])[:, None] < either[:, 1:]
            inputs = value + VALUES * second
            for n, token in zip(numbers, inputs[:, 0].tolist(), strict=True):
                out[n].append(token)
    return texts([row.prompt for row in rows], [[*tokens, END] for tokens in out])


@torch.no_grad()
def trait_of(model: Any) -> list[float]:
    """For each held-out question, the log-odds of the trait's animal against all other animals, in nats."""
    logits = model.eval()(input_ids=torch.tensor(held_out())).logits[:, -1, ANIMAL:WORD].log_softmax(-1)
    chosen = logits[:, TRAIT]
    others = logits[:, [a for a in range(ANIMALS) if a != TRAIT]].logsumexp(-1)
    return [float(v) for v in chosen - others]
