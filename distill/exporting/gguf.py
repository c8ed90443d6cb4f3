"""Writes a Llama decoder as two GGUF files: one in float16, and one in q8_0 with the weights that `int8` quantized.

The names of weights and metadata keys come from the `gguf` package. For rotary position embeddings, llama.cpp rotates
neighboring pairs of a head's dimensions, while transformers rotates the two halves. The rows of query and key weights
are therefore permuted.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from distill.exporting.int8 import BLOCK, Int8
from distill.exporting.running import Array
from synthgen.errors import UserError
from synthgen.lm.turns import template_end

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The entries of tokenizer.json for each pre-tokenizer that llama.cpp knows by name.
_CUTS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [{"type": "ByteLevel", "use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|{_WORDS}"}, "behavior": "Isolated"},
        {"type": "ByteLevel", "use_regex": False},
    ],
}


def check(student: Any) -> str:
    """Return llama.cpp's name of the student's pre-tokenizer. Raises UserError when the student cannot be written."""
    config = student.model.config
    rope = getattr(config, "rope_parameters", None) or {}
    plain = {
        "architecture": (config.model_type, "llama"),
        "rotary embedding": (rope.get("rope_type", "default"), "default"),
        "activation": (getattr(config, "hidden_act", None), "silu"),
        "bias in attention": (bool(getattr(config, "attention_bias", False)), False),
        "bias in MLP": (bool(getattr(config, "mlp_bias", False)), False),
    }
    for what, (value, wanted) in plain.items():
        if value != wanted:
            raise UserError(
                f"GGUF export supports only plain Llama models; this student's {what} is {value}",
                "export the student with --to onnx",
            )
    tokenizer = _tokenizer(student)
    cuts = tokenizer["pre_tokenizer"] or {}
    cuts = cuts.get("pretokenizers", [cuts])
    name = next((n for n, wanted in _CUTS.items() if _like(cuts, wanted)), "")
    if not name or tokenizer["model"]["type"] != "BPE" or tokenizer["normalizer"] is not None:
        raise UserError(
            "GGUF export supports only byte-level BPE tokenizers that llama.cpp knows by name",
            "export the student with --to onnx",
        )
    return name


def _like(cuts: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> bool:
    return len(cuts) == len(wanted) and all(w.items() <= c.items() for w, c in zip(wanted, cuts, strict=True))


def _tokenizer(student: Any) -> dict[str, Any]:
    backend = getattr(student.tokenizer, "backend_tokenizer", None)
    return dict(json.loads(backend.to_str())) if backend is not None else {"pre_tokenizer": None, "model": {"type": ""}}


def write_decoder(student: Any, weights: Mapping[str, Int8], folder: Path) -> dict[str, str]:
    """Write both files. Returns a file name for each row of the export's table."""

    def add(writer: gguf.GGUFWriter, some: Mapping[str, Int8]) -> None:
        _add_config(writer, student.model.config)
        _add_tokenizer(writer, student)
        _add_tensors(writer, student.model, some)

    return write_both(folder, "llama", weights, add)


def write_both(
    folder: Path,
    architecture: str,
    weights: Mapping[str, Int8],
    add: Callable[[gguf.GGUFWriter, Mapping[str, Int8]], None],
) -> dict[str, str]:
    """Write model-f16.gguf and model-q8_0.gguf. Returns a file name for each row of the export's table.

    `add` adds metadata and tensors to a writer. `add` receives the quantized weights, which are empty for the float16
    file.
    """
    files = {"GGUF, float16": "model-f16.gguf", "GGUF, q8_0": "model-q8_0.gguf"}
    kinds = gguf.LlamaFileType.MOSTLY_F16, gguf.LlamaFileType.MOSTLY_Q8_0
    for file, kind, some in zip(files.values(), kinds, ({}, weights), strict=True):
        writer = gguf.GGUFWriter(folder / file, architecture)
        writer.add_file_type(kind)
        add(writer, some)
        _write(writer, folder / file)
    return files


def _write(writer: gguf.GGUFWriter, path: Path) -> None:
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except OSError as error:  # an OSError from numpy states the number of unwritten bytes, but has no errno
        raise OSError(error.errno or errno.ENOSPC, error.strerror or str(error), str(path)) from None
    finally:
        writer.close()


def _add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _add_tokenizer(writer: gguf.GGUFWriter, student: Any) -> None:
    tokenizer, size = student.tokenizer, student.model.config.vocab_size
    words = {i: word for word, i in tokenizer.get_vocab().items()}
    types = dict.fromkeys(words, gguf.TokenType.NORMAL)
    for i, added in tokenizer.added_tokens_decoder.items():
        types[i] = gguf.TokenType.CONTROL if added.special else gguf.TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(check(student))
    writer.add_token_list([words.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([types.get(i, gguf.TokenType.UNUSED) for i in range(size)])
    merges = _tokenizer(student)["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    add_special(writer, tokenizer, ("bos", "eos", "unk", "pad"))
    end = template_end(tokenizer)
    if end is not None and end != tokenizer.eos_token_id:  # llama.cpp knows only some of these tokens by their text
        writer.add_eot_token_id(end)
    writer.add_add_bos_token(tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id)
    template = tokenizer.chat_template
    if isinstance(template, dict):  # there are several templates; llama.cpp reads the template named "default"
        template = [{"name": name, "template": text} for name, text in template.items()]
    if template:
        writer.add_chat_template(template)


def add_special(writer: gguf.GGUFWriter, tokenizer: Any, names: Sequence[str]) -> None:
    """Add the ids of the named special tokens that the tokenizer has."""
    for name in names:
        i = getattr(tokenizer, f"{name}_token_id")
        if i is not None:
            getattr(writer, f"add_{name}_token_id")(i)


def _add_tensors(writer: gguf.GGUFWriter, model: Any, weights: Mapping[str, Int8]) -> None:
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for full, parameter in model.named_parameters():  # tied embeddings are listed only once
        module = full.removesuffix(".weight")
        name = names.get_name(full, try_suffixes=(".weight",))
        if name is None:
            raise UserError(f"GGUF has no name for the weight '{full}'", "export the student with --to onnx")
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module.split(".")[-1])
        found = weights.get(module)
        if found is not None:
            values = _pairs(found.values_NK.numpy(), heads)
            scales = _pairs(found.scales_NB.numpy(), heads)
            writer.add_tensor(name, packed(values, scales), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            data = _pairs(parameter.detach().float().numpy(), heads)
            writer.add_tensor(name, data.astype(np.float16) if data.ndim > 1 else data)


def _pairs(data: Array, heads: int | None) -> Array:
    """Permute the rows (heads · width, …) of a query or key weight from the order of transformers to that of llama.cpp.

    The two halves of each head become neighboring pairs. Without `heads`, the data is returned unchanged.
    """
    if heads is None:
        return data
    return data.reshape(heads, 2, len(data) // heads // 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)


def packed(values_NK: Array, scales_NB: Array) -> Array:
    """Return the bytes of q8_0: for each block a float16 scale and 32 int8 values."""
    rows = len(values_NK)
    blocks = values_NK.reshape(rows, -1, BLOCK).view(np.uint8)
    return np.concatenate([scales_NB[..., None].view(np.uint8), blocks], -1).reshape(rows, -1)
