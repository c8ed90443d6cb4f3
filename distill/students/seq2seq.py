"""Students of an encoder and a decoder (T5, BART and their kin) in the teacher's tokens.

The encoder reads the prompt as the teacher's chat template renders it; the decoder reads its start token and the
completion, and predicts the completion, so the stored distributions stand beside its states one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from distill.students.build import Student, check_vocabulary, random_weights
from synthgen.errors import RecipeError
from synthgen.lm.load import load_weights, pick_device
from synthgen.lm.render import render
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import Seq2SeqStudent
from synthgen.teachers.base import Reply
from synthgen.teachers.transformers import LocalModel


def seq2seq(student: Seq2SeqStudent, teacher: LocalModel, seed: int, rows: Sequence[Any] = ()) -> Student:
    """The student that a recipe names, before training: the same weights whenever it is called.

    Random weights begin and pad with the tokenizer's padding token, or, where it has none, its end. Raises RecipeError
    for one that cannot be, has another vocabulary than the teacher, or fewer positions than one of `rows` has tokens.
    """
    tokenizer = teacher.tokenizer
    if student.model is not None:
        model, its, _ = load_weights(TeacherSection(model=student.model), AutoModelForSeq2SeqLM)
        check_vocabulary(its, tokenizer, student.model)
        model = model.float()
        if model.config.decoder_start_token_id is None:
            raise RecipeError(
                f"train.student.model '{student.model}' names no decoder_start_token_id", "add it to its config.json"
            )
    else:
        end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else min(teacher.eos, default=0)
        start = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
        special = {
            "pad_token_id": start,
            "decoder_start_token_id": start,
            "eos_token_id": end,
            "forced_eos_token_id": None,
        }
        size = max(len(tokenizer), int(teacher.identity["vocab_size"]))
        torch.manual_seed(seed)
        model = random_weights(AutoModelForSeq2SeqLM, student.config or {}, tokenizer, {**special, "vocab_size": size})
        model.generation_config.eos_token_id = sorted(teacher.eos)
    if not model.config.is_encoder_decoder:
        raise RecipeError("train.student: that is no encoder with a decoder", "name one such as t5 or bart")
    room = getattr(model.config, "max_position_embeddings", None)
    longest = max((max(len(row.prompt), len(row.completion)) for row in rows), default=0)
    if room is not None and longest > room:
        raise RecipeError(
            f"the student has {room} positions, and a row has a prompt or completion of {longest} tokens",
            "lower train.max_length, or raise max_position_embeddings in train.student.config",
        )
    return Student(model.train())


@dataclass
class Seq2SeqModel:
    """A trained student that writes greedily."""

    model: Any
    tokenizer: Any
    batch_size: int

    @classmethod
    def open(cls, folder: str | Path, batch_size: int, device: torch.device | None = None) -> Seq2SeqModel:
        """From the folder that training wrote."""
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
        return cls(model.eval().to(device or pick_device("auto")), AutoTokenizer.from_pretrained(folder), batch_size)

    @torch.inference_mode()
    def sample(
        self, requests: Sequence[Request], spec: None = None, tick: Callable[[int], None] = lambda tokens: None
    ) -> list[Reply]:
        """The likeliest token after the likeliest, to an end token or the request's `max_new_tokens`."""
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
            made = self.model.generate(
                ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=max(limits),
                do_sample=False,
                num_beams=1,
            )
            for prompt, row, limit in zip(prompts, made.tolist(), limits, strict=True):
                tokens = row[1 : limit + 1]  # without the start token
                length = next((n + 1 for n, token in enumerate(tokens) if token in ends), len(tokens))
                text = self.tokenizer.decode([t for t in tokens[:length] if t not in ends], skip_special_tokens=True)
                replies.append(Reply(text, prompt, tokens[:length], "stop" if tokens[length - 1] in ends else "length"))
        return replies
