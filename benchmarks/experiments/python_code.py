"""The task of several experiments: language modeling on the source of Python's standard library.

Texts are windows of 64 tokens. The first 8 tokens are the prompt and the other 56 are the completion. All windows of
some files are held out. Two teachers can be trained. The two teachers differ only in their seed.
"""

from __future__ import annotations

import functools
import hashlib
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import CACHE, as_teacher, cached, llama, section_of, sized, train

from distill.data import Example
from distill.streaming.batches import Order
from distill.targets.live import Text
from distill.targets.stored import FromStored
from synthgen.lm.forward import completion_logits
from synthgen.teachers.transformers import LocalModel

VOCABULARY, WINDOW, PROMPT = sized(2048, 512), 64, 8
TEACHER_ROWS, ROWS, HELD_OUT = sized(16_000, 64), sized(3_000, 32), sized(240, 6)
MODULES = sized(10**6, 60)
TEACHER = {"width": 160, "layers": 3, "heads": 5}
STUDENT = {"width": 96, "layers": 2, "heads": 3}
STEPS, BATCH = sized(375, 2), 16  # 375 steps of 16 rows are two passes over the rows
_BINS = 15


def sources() -> list[tuple[str, str]]:
    """(relative path, text) of each module of the library, without tests, tables of data and installed packages. There
    are at most `MODULES`.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    modules = []
    for path in sorted(root.rglob("*.py")):
        name = str(path.relative_to(root))
        if not any(part in name for part in ("site-packages", "test", "lib2to3", "idlelib", "pydoc_data", "encodings")):
            modules.append((name, path.read_text(encoding="utf-8", errors="replace")))
    return modules[:MODULES]


@functools.cache
def tokenizer() -> Any:
    """A byte-level BPE tokenizer trained on the files that are not held out."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    path = CACHE / "python-tokenizer.json"
    if not path.exists():
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<end>"], show_progress=False)
        bpe.train_from_iterator([text for name, text in sources() if not held_out(name)], trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        bpe.save(str(path))
    return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<end>")


def held_out(name: str) -> bool:
    """Whether a file is held out. A hash of the name chooses one file in ten."""
    return hashlib.blake2b(name.encode()).digest()[0] % 10 == 0


@functools.cache
def windows() -> dict[str, list[list[int]]]:
    """Three lists of windows: "teacher" and "student" are the windows on which these models are trained, and "test" is
    held out.

    Test windows come from held-out files. No window is in two lists.
    """
    order = np.random.default_rng(0)
    parts: dict[bool, list[list[int]]] = {True: [], False: []}
    for name, text in sources():
        ids = tokenizer()(text)["input_ids"]
        parts[held_out(name)] += [ids[a : a + WINDOW] for a in range(0, len(ids) - WINDOW, WINDOW)]
    train_, test = ([part[i] for i in order.permutation(len(part))] for part in (parts[False], parts[True]))
    assert len(train_) >= TEACHER_ROWS + ROWS, len(train_)
    return {
        "student": train_[:ROWS],
        "teacher": train_[ROWS : ROWS + TEACHER_ROWS],
        "test": test[:HELD_OUT],
    }


def texts(part: list[list[int]]) -> list[Text]:
    """The windows `part` as rows for training with a live teacher."""
    return [Text(str(n), w[:PROMPT], w[PROMPT:], None, True, w[:PROMPT]) for n, w in enumerate(part)]


def batches(rows: list[Any], seed: int, batch: int = BATCH) -> Any:
    """Returns a function that takes the number of a training step and returns the rows of this step, in the order of
    the package's training.
    """
    return lambda step: [rows[i] for i in Order(len(rows), batch, seed).rows(step)]


def student(seed: int) -> Any:
    """The student before training."""
    return llama(VOCABULARY, **STUDENT, seed=1000 + seed, eos=0)


@functools.cache
def teacher(number: int) -> LocalModel:
    """The teacher with the seed `number`: a model that is larger than the student, trained by cross-entropy on the
    teacher's windows.
    """

    def make() -> Any:
        model = llama(VOCABULARY, **TEACHER, seed=number, eos=0)
        steps = TEACHER_ROWS // 16
        section = section_of(steps, 16, number)
        objective = FromStored(model, section)
        print("teacher", number, train(objective, batches(texts(windows()["teacher"]), number), section))
        return model

    return as_teacher(cached(f"python-teacher-{number}", make), tokenizer())


@functools.cache
def distributions(number: int, part: str) -> list[torch.Tensor]:
    """A teacher's log-probabilities (56, V) for each window of `part`."""
    model, logps = teacher(number).model, []
    rows = texts(windows()[part])
    with torch.no_grad():
        for a in range(0, len(rows), 64):
            batch = rows[a : a + 64]
            z = completion_logits(model, [r.prompt for r in batch], [r.completion for r in batch])
            logps += [row_z.log_softmax(-1) for row_z in z]
    return logps


def scores(model: Any, number: int = 0) -> dict[str, Any]:
    """Loss, accuracy, agreement with the teacher and KL for each test window, and the calibration error."""
    rows, items = texts(windows()["test"]), {"loss": [], "top1": [], "agreement": [], "kl": []}
    sure, right = [], []
    taught = distributions(number, "test")  # this call may train the teacher, so it must be outside of `no_grad`
    model.eval()
    with torch.no_grad():
        for a in range(0, len(rows), 48):
            batch = rows[a : a + 48]
            logits = completion_logits(model, [r.prompt for r in batch], [r.completion for r in batch])
            for row, z, logp in zip(batch, logits, taught[a : a + 48], strict=True):
                labels, logq = torch.tensor(row.completion), z.log_softmax(-1)
                best = logq.max(-1)
                items["loss"].append(-float(logq.gather(-1, labels[:, None]).mean()))
                items["top1"].append(float((best.indices == labels).float().mean()))
                items["agreement"].append(float((best.indices == logp.argmax(-1)).float().mean()))
                items["kl"].append(float((logp.exp() * (logp - logq)).sum(-1).mean()))
                sure += best.values.exp().tolist()
                right += (best.indices == labels).tolist()
    return {"items": items, "ece": round(ece(np.array(sure), np.array(right, float)), 4)}


def ece(sure: Any, right: Any) -> float:
    """Expected calibration error of the most likely token, over 15 bins of equal width."""
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    return float(sum(abs((sure - right)[place == b].sum()) for b in range(_BINS)) / len(sure))


def examples(targets: list[Any]) -> list[Example]:
    """The student's windows with their stored targets."""
    rows = texts(windows()["student"])
    return [Example(r.id, r.prompt, r.completion, t, True) for r, t in zip(rows, targets, strict=True)]
