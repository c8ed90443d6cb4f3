"""Exports the MLP on hashed n-grams to ONNX, with a script that needs only onnxruntime and numpy."""

from __future__ import annotations

import inspect

import numpy as np
import onnx_ir as ir

from distill.exporting import parity, timing
from distill.exporting.job import Job, no_rows
from distill.exporting.running import open_mlp, padded
from distill.exporting.usage import usage
from distill.held_out import first_rows
from distill.students.classifier import Classifier, features
from synthgen import durable
from synthgen.results.export import Export, ExportedFile
from synthgen.results.measures import Table

_OPSET = 18
_SCRIPT = '''"""Labels of texts. python predict.py TEXT..."""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent


{features}

{padded}

def main(texts):
    config = json.loads((HERE / "config.json").read_text())
    session = onnxruntime.InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    ids, weights = padded([features(text, config["buckets"]) for text in texts])
    (probabilities,) = session.run(None, {{"ids": ids, "weights": weights}})
    for text, row in zip(texts, probabilities):
        print(json.dumps({{"text": text, "probabilities": dict(zip(config["labels"], map(float, row)))}}))


if __name__ == "__main__":
    main(sys.argv[1:])
'''


def write_onnx(job: Job) -> Export:
    """Write model.onnx and predict.py, and compare the graph with the student on the held-out texts."""
    texts = [row.text for row in first_rows(job.source, "test")]
    if not texts:
        raise no_rows(job.source)
    classifier = Classifier.load(job.student)
    ir.save(graph(classifier), str(job.out / "model.onnx"))
    script = _SCRIPT.format(features=inspect.getsource(features), padded=inspect.getsource(padded))
    durable.write_text(job.out / "predict.py", script)
    files = {
        "student": ExportedFile("model.safetensors", "numpy"),
        "ONNX, float32": ExportedFile("model.onnx", "onnxruntime"),
    }
    predict = open_mlp("onnxruntime", job.out / "model.onnx")
    table: Table = {
        "student": {},
        "ONNX, float32": parity.same_labels(classifier.predict(texts), predict(texts)),
    }
    parity.weigh(table, files, job, {"texts": texts}, timing.MLP)
    return Export(
        kind=job.kind,
        rows=len(texts),
        unit="texts",
        measures=parity.LABEL_MEASURES,
        table=table,
        files=files,
        usage=usage("onnx_classifier.md.j2", files),
        gate=parity.gate("label"),
        notes=parity.NOTES,
    )


def graph(classifier: Classifier) -> ir.Model:
    """Build the graph. Inputs: ids and weights (texts, pieces). Output: probabilities (texts, labels)."""
    weights = {
        "embed": classifier.embed,
        "bias": classifier.bias,
        "out": classifier.out,
        "out_bias": classifier.out_bias,
    }
    constants = {name: ir.Value(name=name, const_value=ir.tensor(a, name=name)) for name, a in weights.items()}
    shape = ir.Shape(["texts", "pieces"])
    ids = ir.Value(name="ids", shape=shape, type=ir.TensorType(ir.DataType.INT64))
    given = ir.Value(name="weights", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    rows = ir.node("Gather", [constants["embed"], ids])
    one = ir.node("Constant", [], {"value": ir.tensor(np.array([1]))})
    across = ir.node("Unsqueeze", [given, one.outputs[0]])
    bag = ir.node("MatMul", [across.outputs[0], rows.outputs[0]])  # (texts, 1, pieces) · (texts, pieces, hidden)
    flat = ir.node("Squeeze", [bag.outputs[0], one.outputs[0]])
    hidden = ir.node("Relu", [(added := ir.node("Add", [flat.outputs[0], constants["bias"]])).outputs[0]])
    product = ir.node("MatMul", [hidden.outputs[0], constants["out"]])
    logits = ir.node("Add", [product.outputs[0], constants["out_bias"]])
    softmax = ir.node("Softmax", [logits.outputs[0]], {"axis": -1})
    result = softmax.outputs[0]
    result.name, result.type = "probabilities", ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape(["texts", len(classifier.labels)])
    nodes = [rows, one, across, bag, flat, added, hidden, product, logits, softmax]
    made = ir.Graph(
        [ids, given],
        [result],
        nodes=nodes,
        initializers=list(constants.values()),
        opset_imports={"": _OPSET},
        name="student",
    )
    return ir.Model(made, ir_version=10, producer_name="synthgen-distill")
