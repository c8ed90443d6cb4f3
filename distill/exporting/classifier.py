"""The hashed MLP as ONNX, with a script beside it that makes its input and runs on onnxruntime and numpy alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from distill.evaluation.cost import measure
from distill.exporting.parity import LEAST, same_labels
from distill.exporting.running import open_classifier, padded
from distill.students.classifier import Classifier, features, prompt_text
from synthgen import durable
from synthgen.errors import UserError
from synthgen.ui import UI

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


def write_classifier(folder: Path, source: Path, temporary: Path, ui: UI) -> dict[str, Any]:
    """model.onnx and predict.py, compared with the student on the held-out texts of `source`."""
    from distill.data import rows

    texts = [prompt_text(record) for record, _ in rows(source, "test")]
    if not texts:
        raise UserError(
            f"{source} has no held-out rows to compare on", "set split.test in the recipe, or name a corpus"
        )
    classifier = Classifier.load(folder)
    ir.save(graph(classifier), str(temporary / "model.onnx"))
    script = _SCRIPT.format(features=inspect.getsource(features), padded=inspect.getsource(padded))
    durable.write_text(temporary / "predict.py", script)
    theirs, ours = classifier.predict(texts), open_classifier("onnxruntime", temporary)(texts)
    ui.note("export: speed and memory, each in a process of its own")
    table: dict[str, dict[str, Any]] = {
        "student": {"runtime": "numpy", "file": "model.safetensors"},
        "ONNX, float32": {
            "runtime": "onnxruntime",
            "file": "model.onnx",
            **same_labels(theirs, ours),
        },
    }
    for name, row in table.items():
        home = folder.resolve() if name == "student" else temporary
        row["bytes"] = (home / row["file"]).stat().st_size
        row |= measure(
            {"what": "exported", "kind": "classifier", "runtime": row["runtime"], "path": str(home), "texts": texts}
        )
    return {"rows": len(texts), "least_agreement": LEAST, "table": table}


def graph(classifier: Classifier) -> ir.Model:
    """ids and weights (texts, pieces) → probabilities (texts, labels)."""
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
