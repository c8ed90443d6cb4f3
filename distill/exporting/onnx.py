"""Writes decoders and encoder classifiers as ONNX, in float32 and with eight-bit weights.

A decoder has a single graph, which reads first the prompt and then each further token. Inputs: input_ids (batch, new),
attention_mask (batch, past + new), position_ids (batch, new), and for each layer past_key_values.N.key and .value
(batch, heads, past, width). Outputs: logits (batch, new, vocabulary), and for each layer present.N.key and .value
(batch, heads, past + new, width). The names are those of Optimum, which ONNX runtimes and browser libraries expect.

An encoder has the inputs input_ids and attention_mask (texts, tokens), and the output logits (texts, labels). An
exported encoder comes with a script that runs the graph without torch.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass

from distill.exporting.int8 import BLOCK, Int8
from distill.exporting.running import reader
from distill.students.encoder import Encoder
from synthgen import durable
from synthgen.errors import UserError
from synthgen.lm.files import first_line
from synthgen.teachers.encoder import context_of

_PREDICT = '''"""Labels of texts. python predict.py TEXT..."""

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

_ONE_FILE = 1_900_000_000  # bytes; protobuf is limited to 2 GiB, so larger weights go to a separate file
_CACHE = re.compile(r"(input|output)\.past_key_values\.layers\.(\d+)\.(key|value)s")


def write_decoder(student: Any, weights: Mapping[str, Int8], folder: Path) -> dict[str, str]:
    """Write model.onnx and model_int8.onnx. Returns a file name for each row of the export's table."""
    with quiet():
        graph = decoder_graph(student.model)
    save(graph, folder / "model.onnx")
    to_int8(graph, student.model, weights)
    save(graph, folder / "model_int8.onnx")
    return {"ONNX, float32": "model.onnx", "ONNX, 8-bit weights": "model_int8.onnx"}


def write_encoder(folder: Path, student: Encoder, weights: Mapping[str, Int8], temporary: Path) -> dict[str, str]:
    """Write model.onnx, model_int8.onnx, predict.py and predict.json into `temporary`.

    Returns a file name for each row of the export's table. Raises UserError when the student has no tokenizer.json.
    """
    if not (folder / "tokenizer.json").exists():
        raise UserError(
            f"{folder} has no tokenizer.json, which the export needs to run without transformers",
            "train a student from another base model",
        )
    context = context_of(student.model.config, student.tokenizer)
    facts = {"labels": student.labels, "max_length": context, "pad": student.tokenizer.pad_token_id}
    durable.write_json(temporary / "predict.json", facts)
    durable.write_text(temporary / "predict.py", _PREDICT.format(reader=inspect.getsource(reader)))
    with quiet():
        graph = encoder_graph(student.model)
    save(graph, temporary / "model.onnx")
    to_int8(graph, student.model, weights)
    save(graph, temporary / "model_int8.onnx")
    return {"ONNX, float32": "model.onnx", "ONNX, 8-bit weights": "model_int8.onnx"}


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the exporters' output, because stdout is reserved for results. Also suppresses warnings."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def decoder_graph(model: Any) -> ir.Model:
    """Export a transformers decoder to a float32 graph of standard operators, with the exporter of transformers.

    Raises UserError when the exporter does not support the architecture.
    """
    with _supported(model):
        graph = _traced(model)
    names = {value.name for value in graph.graph.inputs}
    caches = {f"past_key_values.{n}.{part}" for n in range(model.config.num_hidden_layers) for part in ("key", "value")}
    if names != {"input_ids", "attention_mask", "position_ids"} | caches:
        raise _unsupported(model, "the inputs of its graph are not tokens, mask, positions and the cache of each layer")
    return graph


@contextmanager
def _supported(model: Any) -> Iterator[None]:
    """Turn any error of the exporters into a UserError, because an exporter may support only some architectures."""
    try:
        yield
    except (MemoryError, OSError, UserError):
        raise
    except Exception as error:
        line = re.sub(r"\x1b\[\d*m", "", first_line(error))  # without the codes of colors
        raise _unsupported(model, f"{type(error).__name__}: {line}") from None


def _unsupported(model: Any, reason: str) -> UserError:
    return UserError(
        f"this student ({model.config.model_type}) cannot be exported to ONNX: {reason}",
        "transformers loads the student's folder directly",
    )


def _traced(model: Any) -> ir.Model:
    from transformers import DynamicCache

    # Example inputs: two rows, three past tokens and two new tokens. No size is 0 or 1, because torch.export
    # specializes these sizes.
    ids = torch.zeros((2, 5), dtype=torch.long)
    past = DynamicCache()  # this cache keeps all tokens; the mask applies the attention window of a layer
    with torch.no_grad():
        model(ids[:, :3], past_key_values=past)
    if [layer.get_seq_length() for layer in past.layers] != [3] * model.config.num_hidden_layers:
        raise _unsupported(model, "not every layer has a cache of keys and values")

    from transformers.exporters import OnnxConfig, OnnxExporter
    from transformers.exporters.exporter_dynamo import get_auto_dynamic_shapes

    inputs = {
        "input_ids": ids[:, 3:],
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(3, 5).expand(2, 2),
        "past_key_values": past,
    }
    shapes = _varying(get_auto_dynamic_shapes(inputs))
    graph = OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True, dynamic_shapes=shapes)).program
    for value in [*graph.graph.inputs, *graph.graph.outputs]:
        found = _CACHE.fullmatch(value.name)
        if found:
            side = "past_key_values" if found[1] == "input" else "present"
            value.name = f"{side}.{found[2]}.{found[3]}"
            value.shape = ir.Shape([int(d) if str(d).isdigit() else d for d in map(_dimension, value.shape)])
    return graph


def encoder_graph(model: Any) -> ir.Model:
    """Export a transformers classifier to a float32 graph of standard operators, with the exporter of transformers."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    ids = torch.ones((2, 5), dtype=torch.long)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    varying = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shapes = {name: dict(varying) for name in inputs}
    with _supported(model):
        graph: ir.Model = OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True, dynamic_shapes=shapes)).program
    return graph


def _varying(shapes: Any) -> Any:
    """Keep only the dimensions that vary: rows and tokens. Tracing is several times faster with fewer dynamic
    dimensions.
    """
    if isinstance(shapes, dict) and all(isinstance(key, int) for key in shapes):
        return {key: shapes[key] for key in ((0, 2) if len(shapes) == 4 else (0, 1))}
    if isinstance(shapes, dict):
        return {key: _varying(value) for key, value in shapes.items()}
    return [_varying(value) for value in shapes]


def _dimension(dimension: Any) -> Any:
    return dimension if isinstance(dimension, int) else dimension.value


def save(graph: ir.Model, path: Path) -> None:
    """Write a graph. If the graph has more than `_ONE_FILE` bytes of weights, the weights are written to PATH.data."""
    size = sum(v.const_value.nbytes for v in graph.graph.initializers.values() if v.const_value is not None)
    ir.save(graph, str(path), external_data=f"{path.name}.data" if size > _ONE_FILE else None)


def to_int8(graph: ir.Model, model: Any, weights: Mapping[str, Int8]) -> None:
    """Replace float32 weights by the quantized `weights`, in place.

    Activations keep 16 bits. MatMulNBits with accuracy level 4 rounds its input to eight bits. Each input is therefore
    split into a rounded part and the remainder. One matrix product multiplies both parts, so the weights are read only
    once.
    """
    by_bytes: dict[str, str] = {}
    for name, module in model.named_modules():
        if name in weights:
            weight = module.weight.detach().float().numpy()
            by_bytes |= {_digest(weight): name, _digest(weight.T): name}
    main = graph.graph
    tables: dict[int, tuple[ir.Value, ir.Value]] = {}
    splits: dict[ir.Value, ir.Value] = {}
    for node in list(main):
        source = _constant_weight(node)
        name = by_bytes.get(_digest(source)) if source is not None else None
        if name is None:
            continue
        found = weights[name]
        if id(found) not in tables:
            tables[id(found)] = _table(main, name, found)
        build = _lookup if node.op_type == "Gather" else _product
        new = build(node, tables[id(found)], found, splits)
        main.insert_before(node, new)
        result, old = new[-1].outputs[0], node.outputs[0]
        result.shape, result.dtype, called = old.shape, old.dtype, old.name
        ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        main.remove(node, safe=True)
        old.name, result.name = None, called
    RemoveUnusedNodesPass()(graph)
    graph.opset_imports["com.microsoft"] = 1


def _digest(weight: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(f"{weight.shape}".encode() + np.ascontiguousarray(weight).tobytes()).hexdigest()


def _constant_weight(node: ir.Node) -> np.ndarray[Any, Any] | None:
    """The constant matrix by which a node multiplies a three-dimensional input, or in which the node looks up rows.

    None for other nodes.
    """
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0:
        value = node.inputs[0]
    elif node.op_type == "MatMul" and node.inputs[0].shape is not None and len(node.inputs[0].shape) == 3:
        value = node.inputs[1]
        made = value.producer()
        value = made.inputs[0] if made is not None and made.op_type == "Transpose" else value
    else:
        return None
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    return value.const_value.numpy()


def _constant(graph: ir.Graph, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
    value = ir.Value(
        name=name,
        const_value=ir.tensor(array, name=name),
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    graph.register_initializer(value)
    return value


def _table(graph: ir.Graph, name: str, weights: Int8) -> tuple[ir.Value, ir.Value]:
    """Return the constant inputs of MatMulNBits: uint8 values (N, K / 32, 32) with zero point 128, and float32 scales
    (N, K / 32).
    """
    values = (weights.values_NK.numpy().astype(np.int16) + 128).astype(np.uint8)
    blocks = values.reshape(len(values), -1, BLOCK)
    scales = weights.scales_NB.float().numpy()
    return _constant(graph, f"{name}.int8", blocks), _constant(graph, f"{name}.scales", scales)


def _lookup(node: ir.Node, table: tuple[ir.Value, ir.Value], weights: Int8, splits: Any) -> list[ir.Node]:
    """Build the nodes that look up and dequantize rows of an eight-bit table, in standard operators."""
    ids = node.inputs[1]
    rows = ir.node("Gather", [table[0], ids])
    floats = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT})
    zero = ir.node("Constant", [], {"value": ir.tensor(np.float32(128))})
    centered = ir.node("Sub", [floats.outputs[0], zero.outputs[0]])
    scales = ir.node("Gather", [table[1], ids])
    last = ir.node("Constant", [], {"value": ir.tensor(np.array([-1]))})
    wide = ir.node("Unsqueeze", [scales.outputs[0], last.outputs[0]])
    scaled = ir.node("Mul", [centered.outputs[0], wide.outputs[0]])
    shape = ir.node("Constant", [], {"value": ir.tensor(np.array([0, 0, weights.values_NK.shape[1]]))})
    flat = ir.node("Reshape", [scaled.outputs[0], shape.outputs[0]])
    return [rows, floats, zero, centered, scales, last, wide, scaled, shape, flat]


def _product(
    node: ir.Node, table: tuple[ir.Value, ir.Value], weights: Int8, splits: dict[ir.Value, ir.Value]
) -> list[ir.Node]:
    """Build the nodes for x @ weightᵀ, with x split into two eight-bit parts."""
    n, k = weights.values_NK.shape
    x = node.inputs[0]
    before: list[ir.Node] = []
    if x not in splits:
        before = _split(x, k)
        splits[x] = before[-1].outputs[0]
    attributes = {"K": k, "N": n, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    both = ir.node("MatMulNBits", [splits[x], *table], attributes, domain="com.microsoft")
    halves = ir.node("Split", [both.outputs[0]], {"axis": 0, "num_outputs": 2}, num_outputs=2)
    return [*before, both, halves, ir.node("Add", list(halves.outputs))]


def _split(x: ir.Value, k: int) -> list[ir.Node]:
    """Build the nodes that split x (batch, new, k) into two parts, concatenated to (2 · batch, new, k).

    The first part is x, rounded to multiples of 1/127 of the largest absolute value in its block. The second part is
    the remainder.
    """
    blocked = ir.node("Constant", [], {"value": ir.tensor(np.array([0, 0, -1, BLOCK]))})
    blocks = ir.node("Reshape", [x, blocked.outputs[0]])
    size = ir.node("Abs", [blocks.outputs[0]])
    last = ir.node("Constant", [], {"value": ir.tensor(np.array([-1]))})
    peak = ir.node("ReduceMax", [size.outputs[0], last.outputs[0]], {"keepdims": 1})
    steps = ir.node("Constant", [], {"value": ir.tensor(np.float32(127))})
    step = ir.node("Div", [peak.outputs[0], steps.outputs[0]])
    least = ir.node("Constant", [], {"value": ir.tensor(np.float32(1e-30))})
    safe = ir.node("Max", [step.outputs[0], least.outputs[0]])  # avoids 0 / 0 in a block of zeros
    scaled = ir.node("Div", [blocks.outputs[0], safe.outputs[0]])
    rounded = ir.node("Round", [scaled.outputs[0]])
    coarse = ir.node("Mul", [rounded.outputs[0], safe.outputs[0]])
    rest = ir.node("Sub", [blocks.outputs[0], coarse.outputs[0]])
    both = ir.node("Concat", [coarse.outputs[0], rest.outputs[0]], {"axis": 0})
    shape = ir.node("Constant", [], {"value": ir.tensor(np.array([0, 0, k]))})
    flat = ir.node("Reshape", [both.outputs[0], shape.outputs[0]])
    return [
        blocked,
        blocks,
        size,
        last,
        peak,
        steps,
        step,
        least,
        safe,
        scaled,
        rounded,
        coarse,
        rest,
        both,
        shape,
        flat,
    ]
