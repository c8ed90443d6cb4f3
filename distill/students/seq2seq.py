"""Encoder-decoder students: T5, BART and similar models.

The encoder reads the prompt, rendered with the student's chat template. The decoder reads its start token and the
completion, and predicts the completion. If the student has the teacher's tokenizer, each decoder position therefore
corresponds to one stored distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from distill.arms import StudentModel
from distill.job import Job
from distill.students import completions
from distill.students.build import in_words, random_weights
from synthgen.errors import RecipeError
from synthgen.lm.files import ModelFiles
from synthgen.lm.load import load_model, load_tokenizer, load_whole
from synthgen.lm.render import render
from synthgen.lm.tokens import Tokens
from synthgen.requests import Request
from synthgen.results.training import Training
from synthgen.tables.students import KINDS, Seq2SeqStudent
from synthgen.teachers.base import Reply


def train(job: Job) -> Training:
    """Train an encoder-decoder student and its baseline on the same batches. See `Kind.train`."""
    return completions.train(job, lambda longest: _make(job, longest), describe(_section(job)))


def _section(job: Job) -> Seq2SeqStudent:
    assert isinstance(job.section.student, Seq2SeqStudent)
    return job.section.student


def _make(job: Job, longest: int = 0) -> StudentModel:
    student = _section(job)
    size = job.teacher.weights.vocab_size if KINDS[student.kind].needs_teacher(student) else 0
    return seq2seq(student, job.tokens, size, job.section.seed, longest)


def describe(student: Seq2SeqStudent) -> str:
    """Describe what the student was made from, for the model card."""
    if student.model is not None:
        return f"encoder and decoder from the checkpoint {student.model}"
    return f"encoder and decoder of random weights: {in_words(student.config or {})}"


def seq2seq(student: Seq2SeqStudent, tokens: Tokens, vocab_size: int, seed: int, longest: int = 0) -> StudentModel:
    """Build the untrained student of a recipe, with the same weights at every call.

    `tokens` is the student's tokenizer with its end tokens. A student with random weights has the teacher's tokens, and
    `vocab_size` is the width of the teacher's logits. A student with random weights uses the tokenizer's padding token
    as start and padding token, or the end token if the tokenizer has no padding token. `longest` is the length, in
    tokens, of the longest prompt or completion in the training rows.

    Raises RecipeError when the student cannot be built, or has fewer positions than `longest`.
    """
    if student.model is not None:
        model = _from_checkpoint(student.model)
    else:
        model = _of_random_weights(student, tokens, vocab_size, seed)
    if not model.config.is_encoder_decoder:
        raise RecipeError(
            "train.student is not an encoder-decoder model", "name an encoder-decoder model, such as t5 or bart"
        )
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None and longest > room:
        raise RecipeError(
            f"the student has {room} positions, but a row has a prompt or completion of {longest} tokens",
            "lower train.max_length, or raise max_position_embeddings in train.student.config",
        )
    return StudentModel(model.train())


def _from_checkpoint(name: str) -> PreTrainedModel:
    model = load_model(ModelFiles.find(name), "float32", AutoModelForSeq2SeqLM)
    if model.config.decoder_start_token_id is None:
        raise RecipeError(
            f"train.student.model '{name}' has no decoder_start_token_id", "set it in the model's config.json"
        )
    return model.float()


def _of_random_weights(student: Seq2SeqStudent, tokens: Tokens, vocab_size: int, seed: int) -> PreTrainedModel:
    tokenizer = tokens.tokenizer
    end = tokens.end if tokens.end is not None else min(tokens.eos, default=0)
    start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    defaults = {
        "pad_token_id": start,
        "decoder_start_token_id": start,
        "eos_token_id": end,
        "forced_eos_token_id": None,
        "vocab_size": max(len(tokenizer), vocab_size),
    }
    torch.manual_seed(seed)
    model = random_weights(AutoModelForSeq2SeqLM, student.config or {}, tokenizer, defaults)
    model.generation_config.eos_token_id = sorted(tokens.eos)
    return model


@dataclass
class Seq2SeqModel:
    """An encoder-decoder student that writes greedily."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    @classmethod
    def open(cls, folder: str | Path, batch_size: int, device: torch.device) -> Seq2SeqModel:
        """Open a trained student from the folder that training wrote. See `Kind.open`."""
        model = load_whole(str(folder), "float32", AutoModelForSeq2SeqLM)
        return cls(model.eval().to(device), load_tokenizer(str(folder)), batch_size)

    @torch.inference_mode()
    def sample(
        self, requests: Sequence[Request], spec: None = None, tick: Callable[[int], None] = lambda tokens: None
    ) -> list[Reply]:
        """Return one reply for each request. Decoding is greedy, and ends at an end token or `max_new_tokens`."""
        config = self.model.generation_config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        replies: list[Reply] = []
        for begin in range(0, len(requests), self.batch_size):
            batch = requests[begin : begin + self.batch_size]
            prompts = [render(self.tokenizer, r.messages) for r in batch]
            width = max(map(len, prompts))
            ids = torch.tensor([[*p, *[0] * (width - len(p))] for p in prompts])
            mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts])
            limits = [int(r.sampling["max_new_tokens"]) for r in batch]
            generated = self.model.generate(
                ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=max(limits),
                do_sample=False,
                num_beams=1,
            )
            for prompt, row, limit in zip(prompts, generated.tolist(), limits, strict=True):
                tokens = row[1 : limit + 1]  # without the start token
                length = next((n + 1 for n, token in enumerate(tokens) if token in ends), len(tokens))
                text = self.tokenizer.decode([t for t in tokens[:length] if t not in ends], skip_special_tokens=True)
                replies.append(Reply(text, prompt, tokens[:length], "stop" if tokens[length - 1] in ends else "length"))
        return replies


def untrained(job: Job) -> Seq2SeqModel:
    """Build the job's student as it is before the first training step. See `Kind.untrained`."""
    model = _make(job).model.eval().to(job.device)
    return Seq2SeqModel(model, job.tokens.tokenizer, job.runs.batch_size)


def open_student(folder: str | Path, batch_size: int, device: torch.device) -> Seq2SeqModel:
    """Open a trained student. See `Kind.open`."""
    return Seq2SeqModel.open(folder, batch_size, device)
