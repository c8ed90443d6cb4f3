"""Exports decoders to ONNX or GGUF.

The quantization is calibrated on training rows. Each file is compared with the student on held-out completions, and its
size, speed and memory are measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from distill.exporting import parity, timing
from distill.exporting.int8 import Int8, quantize
from distill.exporting.job import Job, no_rows
from distill.exporting.parity import Pair
from distill.exporting.running import CONTEXT, open_model
from distill.exporting.usage import usage
from distill.streaming.conversations import reader_of
from distill.streaming.tokencache import first_turns
from distill.tokenizer import written_with
from synthgen.results.export import Export, ExportedFile
from synthgen.results.measures import Table
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.transformers import LocalModel

_ROWS = 256  # maximum number of held-out rows for the comparison
_CALIBRATE = 64  # maximum number of training rows for calibration
_TIMED = 8  # maximum number of prompts for the measurement of speed

Write = Callable[[LocalModel, Mapping[str, Int8], Path], dict[str, str]]


def write_onnx(job: Job) -> Export:
    """Write two graphs, in float32 and with eight-bit weights."""
    from distill.exporting.onnx import write_decoder

    return _export(job, _open(job), write_decoder, "onnxruntime", "onnx_decoder.md.j2")


def write_gguf(job: Job) -> Export:
    """Write two files, in float16 and q8_0. For the comparison, the files run in llama.cpp if it is installed,
    otherwise in transformers.
    """
    from distill.exporting.gguf import check, write_decoder

    student = _open(job)
    check(student)
    runtime = "llama.cpp" if importlib.util.find_spec("llama_cpp") else "transformers"
    return _export(job, student, write_decoder, runtime, "gguf_decoder.md.j2")


def _open(job: Job) -> LocalModel:
    student = LocalModel.open(TeacherSection(model=str(job.student.resolve()), device="cpu"))
    student.model.set_attn_implementation("sdpa")  # the exporter does not support the shared-prefix attention
    return student


def _export(job: Job, student: LocalModel, write: Write, runtime: str, template: str) -> Export:
    """Write both files, then compare and measure them."""
    pairs = held_out_pairs(job.source, "test", student, _ROWS)
    if not pairs:
        raise no_rows(job.source)
    job.ui.note(f"export: 8-bit weights, calibrated on at most {_CALIBRATE} training rows")
    weights = quantize(student.model, [p + c for p, c in calibration_pairs(job.source, student)])
    job.ui.note("export: writing the files")
    written = write(student, weights, job.out)
    files = {"student": ExportedFile("model.safetensors", "torch")}
    files |= {name: ExportedFile(file, runtime) for name, file in written.items()}
    table: Table = {"student": {}}
    with job.ui.progress("compare", len(written) * len(pairs), "rows") as bar:
        for name, file in written.items():
            table[name] = parity.agreement(student.model, open_model(runtime, job.out / file), pairs, bar)
    prompts = list({tuple(p): p for p, _ in pairs}.values())[:_TIMED]
    timed = timing.MODEL if runtime != "transformers" else None
    parity.weigh(table, files, job, {"prompts": prompts}, timed)
    return Export(
        kind=job.kind,
        rows=len(pairs),
        unit="completions",
        measures=parity.TOKEN_MEASURES,
        table=table,
        files=files,
        usage=usage(template, files),
        gate=parity.gate("token"),
        notes=parity.NOTES,
    )


def calibration_pairs(source: Path, student: LocalModel) -> list[Pair]:
    """The training rows for calibration, as (prompt, completion) in the student's tokens."""
    return held_out_pairs(source, "train", student, _CALIBRATE)


def held_out_pairs(source: Path, split: str, student: LocalModel, most: int) -> list[Pair]:
    """Return (prompt, completion) in the student's tokens for the first `most` rows of a split.

    Rows without a completion and rows that are too long are left out.
    """
    reader = reader_of(student.tokens, written_with(source, student.tokens), reasoning=False)
    pairs = [(turn.prompt, turn.completion) for turn in first_turns(source, split, reader, most)]
    return [(p, c) for p, c in pairs if c and len(p + c) < CONTEXT - 32 and len(p + c) <= student.context]
