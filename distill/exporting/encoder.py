"""Encoder classifiers as ONNX or GGUF: weights rounded by training texts, files compared on held-out ones, measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from distill.exporting.int8 import Int8, quantize
from distill.exporting.parity import LEAST, same_labels, weigh
from distill.exporting.running import open_classifier
from distill.intervals import Array
from distill.students.classifier import prompt_text
from distill.students.encoder import Encoder
from synthgen.errors import UserError
from synthgen.teachers.encoder import context_of
from synthgen.ui import UI


def write_encoder(folder: Path, source: Path, temporary: Path, to: str, calibrate: int, ui: UI) -> dict[str, Any]:
    """The files of `to`, compared with the student in `folder` on the held-out texts of `source`.

    Eight bits are rounded by `calibrate` training texts.
    """
    from distill.data import rows

    texts = [prompt_text(record) for record, _ in rows(source, "test")]
    if not texts:
        raise UserError(
            f"{source} has no held-out rows to compare on", "set split.test in the recipe, or name a corpus"
        )
    student = Encoder.load(folder)
    if to == "gguf":
        from distill.exporting.bert import check

        check(student)
    ui.note(f"export: weights of eight bits, rounded by {calibrate} training rows at most")
    weights = _rounded(student, [prompt_text(record) for record, _ in rows(source, "train")[:calibrate]])
    ui.note(f"export: {to}")
    if to == "gguf":
        from distill.exporting.bert import write_bert

        runtime = "llama.cpp" if importlib.util.find_spec("llama_cpp") else "torch"
        files = write_bert(student, weights, temporary)
    else:
        from distill.exporting.onnx import write_encoder as write_onnx

        runtime, files = "onnxruntime", write_onnx(folder, student, weights, temporary)
    theirs = student.predict(texts)
    table: dict[str, dict[str, Any]] = {"student": {"runtime": "torch", "file": "model.safetensors"}}
    for name, file in files.items():
        ours = _open(runtime, temporary / file, student)(texts)
        table[name] = {
            "runtime": runtime,
            "file": file,
            **same_labels(theirs, ours),
        }
    weigh(table, folder, temporary, {"texts": texts}, runtime != "torch", ui)
    return {"rows": len(texts), "least_agreement": LEAST, "table": table}


def _rounded(student: Encoder, texts: Sequence[str]) -> dict[str, Int8]:
    """Weights of eight bits; those of positions and token types, rows of little, stay as they are."""
    context = context_of(student.model.config, student.tokenizer)
    ids = student.tokenizer(texts, truncation=True, max_length=context)["input_ids"] if texts else []
    words = student.model.get_input_embeddings()
    small = [n for n, m in student.model.named_modules() if isinstance(m, torch.nn.Embedding) and m is not words]
    return {name: found for name, found in quantize(student.model, ids).items() if name not in small}


def _open(runtime: str, path: Path, student: Encoder) -> Callable[[Sequence[str]], Array]:
    if runtime == "torch":
        from distill.exporting.bert import dequantized

        return dequantized(path, student).predict
    return open_classifier(runtime, path)
