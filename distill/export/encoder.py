"""Encoder classifiers as ONNX, in float32 and with weights of eight bits, and a script that runs them without torch.

Inputs: input_ids and attention_mask (texts, tokens). Output: logits (texts, labels).
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from distill.classifier import prompt_text
from distill.encoder import Encoder
from distill.export.int8 import quantise
from distill.export.onnx import quiet, save, to_int8
from distill.export.parity import LEAST
from distill.export.running import open_classifier, reader
from distill.measure import measure
from synthgen import durable
from synthgen.errors import UserError
from synthgen.teachers.encoder import context_of
from synthgen.ui import UI

_SCRIPT = '''"""Labels of texts. python predict.py TEXT..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).parent


{reader}

def main(texts):
    facts = json.loads((HERE / "predict.json").read_text())
    session = onnxruntime.InferenceSession(HERE / "model_int8.onnx", providers=["CPUExecutionProvider"])
    ids, mask = reader(HERE)(texts)
    (z,) = session.run(None, {{"input_ids": ids, "attention_mask": mask}})
    z = np.exp(z - z.max(-1, keepdims=True))
    for text, row in zip(texts, z / z.sum(-1, keepdims=True)):
        print(json.dumps({{"text": text, "probabilities": dict(zip(facts["labels"], map(float, row)))}}))


if __name__ == "__main__":
    main(sys.argv[1:])
'''


def write_encoder(folder: Path, source: Path, temporary: Path, calibrate: int, ui: UI) -> dict[str, Any]:
    """model.onnx, model_int8.onnx, predict.py and predict.json, compared with the student on the held-out texts of
    `source`; eight bits are rounded by `calibrate` training texts."""
    from distill.data import rows

    texts = [prompt_text(record) for record, _ in rows(source, "test")]
    if not texts:
        raise UserError(
            f"{source} has no held-out rows to compare on", "set split.test in the recipe, or name a corpus"
        )
    if not (folder / "tokenizer.json").exists():
        raise UserError(
            f"{folder} has no tokenizer.json, which a folder without transformers needs", "use another base"
        )
    student = Encoder.load(folder)
    model, context = student.model, context_of(student.model.config, student.tokenizer)
    facts = {"labels": student.labels, "max_length": context, "pad": student.tokenizer.pad_token_id}
    durable.write_json(temporary / "predict.json", facts)
    ui.note(f"export: weights of eight bits, rounded by {calibrate} training rows at most")
    some = [prompt_text(record) for record, _ in rows(source, "train")[:calibrate]]
    weights = quantise(model, student.tokenizer(some, truncation=True, max_length=context)["input_ids"] if some else [])
    words = model.get_input_embeddings()
    small = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Embedding) and m is not words]
    weights = {name: found for name, found in weights.items() if name not in small}  # of positions: rows of little
    ui.note("export: onnx")
    with quiet():
        graph = encoder_graph(model)
    save(graph, temporary / "model.onnx")
    to_int8(graph, model, weights)
    save(graph, temporary / "model_int8.onnx")
    durable.write_text(temporary / "predict.py", _SCRIPT.format(reader=inspect.getsource(reader)))
    theirs = student.predict(texts)
    table: dict[str, dict[str, Any]] = {"student": {"runtime": "torch", "file": "model.safetensors"}}
    for name, file in (("ONNX, float32", "model.onnx"), ("ONNX, 8-bit weights", "model_int8.onnx")):
        ours = open_classifier("onnxruntime", temporary / file)(texts)
        table[name] = {
            "runtime": "onnxruntime",
            "file": file,
            "agreement": float((theirs.argmax(-1) == ours.argmax(-1)).mean()),
            "max_logprob_difference": float(np.abs(np.log(theirs) - np.log(ours)).max()),
        }
    ui.note("export: speed and memory, each file in a process of its own")
    for name, row in table.items():
        home = folder.resolve() if name == "student" else temporary
        row["bytes"] = sum(p.stat().st_size for p in home.glob(f"{row['file']}*"))
        path = home if name == "student" else home / row["file"]
        row |= measure({"what": "exported", "runtime": row["runtime"], "path": str(path), "texts": texts})
    return {"rows": len(texts), "least_agreement": LEAST, "table": table}


def encoder_graph(model: Any) -> ir.Model:
    """The float32 graph of a transformers classifier, in standard operators, by transformers' own exporter."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    ids = torch.ones((2, 5), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    varying = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes = {name: dict(varying) for name in inputs}
    graph: ir.Model = OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True, dynamic_shapes=shapes)).program
    return graph
