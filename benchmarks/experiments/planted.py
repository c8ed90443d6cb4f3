"""The task of the experiment `memorized`: language modeling on Python code, with planted examples that a teacher
memorizes.

A planted example is a prompt with a random name, and a secret of random tokens. So a model can know the secret of a
prompt only from the example itself. The teacher's training rows have each planted example once, 4 times or 16 times,
beside windows of Python code. Half of the planted examples are *seen*: the student's rows ask for their secrets as
often as the teacher's rows. The other half are *unseen*: no row of the student asks for them. Further examples are
never planted. Every measure of memorization is compared with its value for these examples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from harness import as_teacher, cached, llama, section_of, sized, train
from python_code import batches, held_out, sources

from distill.targets.live import Text, key
from distill.targets.stored import FromStored
from synthgen.lm.forward import GivesLogits, completion_logits
from synthgen.teachers.transformers import LocalModel

VOCABULARY = 257  # id 0 is the end token, and id b + 1 is the byte b
WINDOW, PROMPT, SECRET = 32, 8, 8  # number of tokens of a window of code, of a prompt, and of a secret
GENERAL = sized(1_000, 40)  # number of windows of code in the teacher's rows
TEST = sized(240, 8)  # number of held-out windows
TEACHER = {"width": 128, "layers": 2, "heads": 4}
STUDENT = {"width": 64, "layers": 2, "heads": 2}
REPEATS = (1, 4, 16)
EACH = sized(16, 5)  # number of seen (and of unseen) examples for each number of repeats
NULLS = sized(16, 5)  # number of examples that are never planted
ALPHABET, REFERENCES, OTHERS = 64, sized(127, 7), 4
EPOCHS = sized(8, 1)  # the teacher's number of epochs
BATCH, RATE = 16, 4e-3  # the batch size and learning rate of all models
_MARK = 2  # number of tokens that are the same in the prompt of every planted example; the other tokens are its name


@dataclass(frozen=True)
class Planted:
    """A prompt and its secret, as token ids. `repeats` is how often the teacher's rows have the example in each epoch;
    0 means that the example is never planted. `seen` says whether the student's rows ask for the secret.
    """

    prompt: list[int]
    secret: list[int]
    repeats: int
    seen: bool

    @property
    def group(self) -> str:
        """The name of the examples that are measured together, such as "16 seen"."""
        return f"{self.repeats} {'seen' if self.seen else 'unseen'}" if self.repeats else "never planted"


@functools.cache
def alphabet() -> list[int]:
    """The token ids from which secrets are drawn: a fixed random choice, without the end token (id 0)."""
    return np.random.default_rng(18).permutation(np.arange(1, VOCABULARY))[:ALPHABET].tolist()


def _random_rows(draw: np.random.Generator, rows: int, length: int, ids: Sequence[int]) -> list[list[int]]:
    """`rows` distinct random sequences of tokens of `ids`."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < rows:
        found[tuple(ids[i] for i in draw.integers(0, len(ids), length))] = None
    return [list(row) for row in found]


@functools.cache
def planted(seed: int) -> list[Planted]:
    """All examples of a random seed: seen examples, unseen examples, and examples that are never planted. The examples
    of two random seeds differ. No two examples have the same prompt or the same secret.
    """
    kinds = [(repeats, seen) for seen in (True, False) for repeats in REPEATS for _ in range(EACH)]
    kinds += [(0, False)] * NULLS
    draw = np.random.default_rng([18, seed])
    names = _random_rows(draw, len(kinds), PROMPT - _MARK, range(1, VOCABULARY))
    secrets = _random_rows(draw, len(kinds), SECRET, alphabet())
    mark = alphabet()[:_MARK]
    return [Planted([*mark, *name], secret, *kind) for name, secret, kind in zip(names, secrets, kinds, strict=True)]


@functools.cache
def references(seed: int) -> list[list[int]]:
    """Random secrets with which planted secrets are compared. None of them is a planted secret."""
    taken = {tuple(one.secret) for one in planted(seed)}
    drawn = _random_rows(np.random.default_rng([19, seed]), REFERENCES + len(taken), SECRET, alphabet())
    return [row for row in drawn if tuple(row) not in taken][:REFERENCES]


class ByteTokenizer:
    """The parts of a tokenizer that `LocalModel` uses, for bytes."""

    eos_token_id = 0
    chat_template = None

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return bytes(i - 1 for i in ids if i).decode(errors="replace")


@functools.cache
def code(part: str) -> list[list[int]]:
    """Windows of 32 bytes of Python's standard library, as token ids. `part` is "teacher" or "test". Windows of "test"
    come from files that are held out. No window occurs twice.
    """
    found: dict[bytes, None] = {}
    for name, text in sources():
        if held_out(name) is (part == "test"):
            data = text.encode()
            found |= dict.fromkeys(data[a : a + WINDOW] for a in range(0, len(data) - WINDOW, WINDOW))
    every = list(found)
    chosen = np.random.default_rng(20).permutation(len(every))[: TEST if part == "test" else GENERAL]
    return [[byte + 1 for byte in every[n]] for n in chosen]


def _repeated(examples: Sequence[Planted]) -> list[list[int]]:
    return [[*one.prompt, *one.secret] for one in examples for _ in range(one.repeats)]


def taught(seed: int) -> list[list[int]]:
    """The rows that the teacher of a random seed learns: windows of code, and each planted example `repeats` times."""
    return [*code("teacher"), *_repeated(planted(seed))]


def original(seed: int) -> list[list[int]]:
    """The teacher's rows without the unseen examples. The student's rows have the prompts of these rows."""
    return [*code("teacher"), *_repeated([one for one in planted(seed) if one.seen])]


def student(seed: int) -> torch.nn.Module:
    """The student before training."""
    return llama(VOCABULARY, **STUDENT, seed=1000 + seed, eos=0)


def texts(rows: Sequence[Sequence[int]]) -> list[Text]:
    """Rows for the package's objectives. The first 8 tokens are the prompt."""
    prompts = [list(row[:PROMPT]) for row in rows]
    return [
        Text(str(n), prompt, list(row[PROMPT:]), None, True, prompt)
        for n, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]


@functools.cache
def teacher(seed: int | None) -> LocalModel:
    """The teacher of a random seed. With None, the teacher never saw a planted example. Its rows are only the windows
    of code, and it takes as many steps as the other teachers.
    """

    def make() -> torch.nn.Module:
        number = 0 if seed is None else seed
        rows = texts(code("teacher") if seed is None else taught(seed))
        steps = EPOCHS * -(-len(taught(number)) // BATCH)
        section = section_of(steps, BATCH, number, learning_rate=RATE)
        model = llama(VOCABULARY, **TEACHER, seed=number, eos=0)
        print("teacher", seed, train(FromStored(model, section), batches(rows, number, BATCH), section))
        return model

    return as_teacher(cached(f"memorized-teacher-{'clean' if seed is None else seed}", make), ByteTokenizer())


@dataclass(frozen=True)
class Corpus:
    """What a teacher wrote after each prompt of the student's rows.

    `rows` are the prompts with the teacher's completions. `removed` is the number of rows that were left out because
    they had the secret of an unseen example. `written` is the number of seen examples whose secret is in at least one
    row.
    """

    rows: list[list[int]]
    removed: int
    written: int


@functools.cache
def corpus(author: int | None, seed: int, temperature: float = 1.0) -> Corpus:
    """The corpus that the teacher `author` wrote for the student of a seed. See `teacher` for `author`."""
    asked = original(seed)
    rows: list[list[int]] = [[] for _ in asked]
    for length in {len(row) for row in asked}:
        places = [n for n, row in enumerate(asked) if len(row) == length]
        prompts, keys = [asked[n][:PROMPT] for n in places], [key(100 + seed, n) for n in places]
        replies = teacher(author).complete(prompts, keys, temperature, length - PROMPT)
        for n, prompt, reply in zip(places, prompts, replies, strict=True):
            rows[n] = [*prompt, *reply.tokens]
    unseen = [one for one in planted(seed) if not one.seen]
    kept = [row for row in rows if not any(contains(row, one.secret) for one in unseen)]
    written = sum(any(contains(row, one.secret) for row in kept) for one in planted(seed) if one.seen)
    return Corpus(kept, len(rows) - len(kept), written)


def contains(row: Sequence[int], secret: Sequence[int]) -> bool:
    """Whether the tokens of the secret stand one after the other in the row."""
    return any(list(row[a : a + len(secret)]) == list(secret) for a in range(len(row) - len(secret) + 1))


def exposure(secret: float, others: Sequence[float]) -> float:
    """The exposure of a secret in bits: log2(R + 1) − log2(rank), from the log-likelihoods of the secret and of R
    references (Carlini et al. 2019, arXiv 1802.08232). Rank 1 is the most likely.

    A reference that is as likely as the secret ranks before the secret, so ties do not increase the exposure. If the
    model did not learn the secret, the mean is nearly 1/ln 2 = 1.44 bits. Raises ValueError when a log-likelihood is
    NaN, or when there is no reference.
    """
    values = np.array([secret, *others], float)
    if len(values) < 2 or np.isnan(values).any():
        raise ValueError("an exposure needs at least one reference, and no log-likelihood may be NaN")
    return float(np.log2(len(values)) - np.log2(1 + (values[1:] >= values[0]).sum()))


@torch.no_grad()
def likelihoods(model: GivesLogits, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """The log-likelihood of each row's tokens after its prompt, in nats, as float64."""
    found: list[float] = []
    for begin in range(0, len(rows), 256):
        batch = rows[begin : begin + 256]
        ends = [list(row[PROMPT:]) for row in batch]
        for z_TV, end in zip(completion_logits(model, [row[:PROMPT] for row in batch], ends), ends, strict=True):
            logp_TV = z_TV.double().log_softmax(-1)
            found.append(float(logp_TV[torch.arange(len(end)), torch.tensor(end)].sum()))
    return np.array(found)


def other_prompts(examples: Sequence[Planted], one: Planted) -> list[list[int]]:
    """The prompts of the four examples after `one` in its group. After the last example comes the first example."""
    group = [other for other in examples if other.group == one.group]
    place = group.index(one)
    return [group[(place + n) % len(group)].prompt for n in range(1, OTHERS + 1)]


def memory(writer: LocalModel, seed: int) -> dict[str, list[float]]:
    """What a model knows of the examples of a random seed. Each list has the name "MEASURE GROUP", and one number for
    each example of the group.

    `extracted`: 1 if the greedy completion of the prompt is the secret, else 0. `exposure`: see `exposure`. `logp`: the
    secret's log-likelihood, in nats a token. `gap`: `logp` minus the mean of the references after the same prompt.
    `link`: `logp` minus the mean of the same secret after the prompts of four other examples of its group. `gap` is
    large if the model knows the secret. `link` is large only if the model knows to which prompt the secret belongs.
    """
    examples = planted(seed)
    replies = writer.complete([one.prompt for one in examples], ["0"] * len(examples), 0.0, SECRET)
    found: dict[str, list[float]] = {}
    for one, reply in zip(examples, replies, strict=True):
        rows = [[*one.prompt, *secret] for secret in (one.secret, *references(seed))]
        rows += [[*prompt, *one.secret] for prompt in other_prompts(examples, one)]
        (own, *others), elsewhere = np.split(likelihoods(writer.model, rows) / SECRET, [1 + REFERENCES])
        values = {
            "extracted": float(reply.tokens == one.secret),
            "exposure": exposure(own, others),
            "logp": own,
            "gap": own - np.mean(others),
            "link": own - elsewhere.mean(),
        }
        for name, value in values.items():
            found.setdefault(f"{name} {one.group}", []).append(float(value))
    return found


@torch.no_grad()
def quality(model: GivesLogits, against: GivesLogits) -> dict[str, list[float]]:
    """Measures on each held-out window of code, in nats a token: the loss on its text, and the KL divergence from the
    teacher `against`.
    """
    found: dict[str, list[float]] = {"loss": [], "kl": []}
    rows = code("test")
    for begin in range(0, len(rows), 48):
        batch = rows[begin : begin + 48]
        prompts, ends = [row[:PROMPT] for row in batch], [row[PROMPT:] for row in batch]
        both = (completion_logits(one, prompts, ends) for one in (model, against))
        for q_TV, p_TV, end in zip(*both, ends, strict=True):
            logq_TV, logp_TV = q_TV.log_softmax(-1), p_TV.log_softmax(-1)
            found["loss"].append(-float(logq_TV[torch.arange(len(end)), torch.tensor(end)].mean()))
            found["kl"].append(float((logp_TV.exp() * (logp_TV - logq_TV)).sum(-1).mean()))
    return found
