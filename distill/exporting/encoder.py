"""Exports encoder classifiers to ONNX or GGUF.

The quantization is calibrated on training texts. Each file is compared with the student on held-out texts, and its
size, speed and memory are measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch

from distill.exporting import parity, timing
from distill.exporting.int8 import Int8, quantize
from distill.exporting.job import Job, no_rows
from distill.exporting.running import Predict, open_encoder
from distill.exporting.usage import usage
from distill.held_out import first_rows
from distill.students.encoder import Encoder
from synthgen.results.export import Export, ExportedFile
from synthgen.results.measures import Table
from synthgen.teachers.encoder import context_of, token_ids

_CALIBRATE = 64  # maximum number of training texts for calibration

Open = Callable[[Path], Predict]


def write_onnx(job: Job) -> Export:
    """Write two graphs, in float32 and with eight-bit weights, and a script that runs a graph without torch."""
    from distill.exporting.onnx import write_encoder

    student, weights = _rounded(job)
    written = write_encoder(job.student, student, weights, job.out)

    def opened(path: Path) -> Predict:
        return open_encoder("onnxruntime", path)

    return _export(job, student, written, "onnxruntime", opened, "onnx_encoder.md.j2")


def write_gguf(job: Job) -> Export:
    """Write two files, in float16 and q8_0. For the comparison, the files run in llama.cpp if it is installed,
    otherwise in torch.
    """
    from distill.exporting.bert import check, dequantized, write_bert

    student, weights = _rounded(job, check)
    written = write_bert(student, weights, job.out)
    if importlib.util.find_spec("llama_cpp"):
        opened: Open = lambda path: open_encoder("llama.cpp", path)  # noqa: E731
        return _export(job, student, written, "llama.cpp", opened, "gguf_encoder.md.j2")
    return _export(
        job, student, written, "torch", lambda path: dequantized(path, student).predict, "gguf_encoder.md.j2"
    )


def _rounded(job: Job, check: Callable[[Encoder], object] = lambda student: None) -> tuple[Encoder, dict[str, Int8]]:
    """Return the student and its quantized weights. `check` raises an error when the student cannot be written in the
    format.

    The embeddings of positions and token types are small, so they are not quantized. Raises UserError when there are no
    held-out rows.
    """
    if not first_rows(job.source, "test", 1):
        raise no_rows(job.source)
    student = Encoder.load(job.student)
    check(student)
    job.ui.note(f"export: 8-bit weights, calibrated on at most {_CALIBRATE} training rows")
    texts = [row.text for row in first_rows(job.source, "train", _CALIBRATE)]
    context = context_of(student.model.config, student.tokenizer)
    ids = token_ids(student.tokenizer, texts, context)
    words = student.model.get_input_embeddings()
    small = [n for n, m in student.model.named_modules() if isinstance(m, torch.nn.Embedding) and m is not words]
    job.ui.note("export: writing the files")
    return student, {name: found for name, found in quantize(student.model, ids).items() if name not in small}


def _export(job: Job, student: Encoder, written: dict[str, str], runtime: str, opened: Open, template: str) -> Export:
    """Compare and measure the written files."""
    texts = [row.text for row in first_rows(job.source, "test")]
    expected = student.predict(texts)
    files = {"student": ExportedFile("model.safetensors", "torch")}
    files |= {name: ExportedFile(file, runtime) for name, file in written.items()}
    table: Table = {"student": {}}
    for name, file in written.items():
        table[name] = parity.same_labels(expected, opened(job.out / file)(texts))
    timed = timing.ENCODER if runtime != "torch" else None
    parity.weigh(table, files, job, {"texts": texts}, timed)
    return Export(
        kind=job.kind,
        rows=len(texts),
        unit="texts",
        measures=parity.LABEL_MEASURES,
        table=table,
        files=files,
        usage=usage(template, files),
        gate=parity.gate("label"),
        notes=parity.NOTES,
    )
