"""Writes a BERT classifier as two GGUF files: one in float16, and one in q8_0 with the weights that `int8` quantized.

llama.cpp computes the classification head of a BERT when the pooling type is rank. llama.cpp applies the pooler and its
tanh to the state of [CLS], and then the classifier. `llama_get_embeddings_seq` returns the logits of the labels as
float32. The only WordPiece tokenizer of llama.cpp is BERT's uncased tokenizer, which lower-cases text and strips
accents.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import torch

from distill.exporting.gguf import add_special, packed, write_both
from distill.exporting.int8 import Int8
from distill.students.encoder import Encoder
from synthgen.errors import UserError
from synthgen.teachers.encoder import context_of

_HEAD = {"bert.pooler.dense": "cls", "classifier": "cls.output"}
_ADDED = "token_types.weight"  # this tensor must stay float32, because llama.cpp adds its first row without conversion


def check(student: Encoder) -> None:
    """Raise UserError when the student cannot be written as GGUF."""
    config, tokenizer = student.model.config, student.tokenizer
    plain = {
        "architecture": (config.model_type, "bert"),
        "activation": (getattr(config, "hidden_act", None), "gelu"),
        "positions": (getattr(config, "position_embedding_type", "absolute"), "absolute"),
    }
    for what, (value, wanted) in plain.items():
        if value != wanted:
            raise UserError(
                f"GGUF export supports only plain BERT classifiers; this student's {what} is {value}",
                "export the student with --to onnx",
            )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found = json.loads(backend.to_str()) if backend is not None else {}
    cuts, words = found.get("normalizer") or {}, found.get("model") or {}
    cleans = all(cuts.get(name) for name in ("lowercase", "clean_text", "handle_chinese_chars"))
    if not (
        (cuts.get("type") == "BertNormalizer" and cleans and cuts.get("strip_accents") is not False)
        and (words.get("type") == "WordPiece" and words.get("continuing_subword_prefix") == "##")
        and (found.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and tokenizer("")["input_ids"] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
    ):
        raise UserError(
            "GGUF export supports only BERT's uncased tokenizer, which the student does not have",
            "export the student with --to onnx",
        )


def write_bert(student: Encoder, weights: Mapping[str, Int8], folder: Path) -> dict[str, str]:
    """Write both files. Returns a file name for each row of the export's table."""

    def add(writer: gguf.GGUFWriter, some: Mapping[str, Int8]) -> None:
        _add_config(writer, student)
        _add_tokenizer(writer, student)
        _add_tensors(writer, student, some)

    return write_both(folder, "bert", weights, add)


def _add_config(writer: gguf.GGUFWriter, student: Encoder) -> None:
    config = student.model.config
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context_of(config, student.tokenizer))  # callers must truncate texts with more tokens
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(student.labels)


def _add_tokenizer(writer: gguf.GGUFWriter, student: Encoder) -> None:
    tokenizer, size = student.tokenizer, student.model.config.vocab_size
    special = {i for i, added in tokenizer.added_tokens_decoder.items() if added.special}
    words = {
        i: word if i in special else word[2:] if word.startswith("##") else f"▁{word}"  # ▁: start of a word
        for word, i in tokenizer.get_vocab().items()
    }
    kinds = dict.fromkeys(words, gguf.TokenType.NORMAL) | dict.fromkeys(special, gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([words.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([kinds.get(i, gguf.TokenType.UNUSED) for i in range(size)])
    writer.add_token_type_count(student.model.config.type_vocab_size)
    writer.add_bos_token_id(tokenizer.cls_token_id)
    add_special(writer, tokenizer, ("sep", "unk", "pad", "mask"))


def _add_tensors(writer: gguf.GGUFWriter, student: Encoder, weights: Mapping[str, Int8]) -> None:
    config = student.model.config
    for full, parameter in student.model.named_parameters():
        name, values = tensor_name(full, config.num_hidden_layers), parameter.detach().float().numpy()
        if name == "position_embd.weight":
            values = values[: context_of(config, student.tokenizer)]
        found = weights.get(full.removesuffix(".weight"))
        if found is not None:
            data = packed(found.values_NK.numpy(), found.scales_NB.numpy())
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values if values.ndim == 1 or name == _ADDED else values.astype("f2"))


def tensor_name(full: str, layers: int) -> str:
    """llama.cpp's name of a parameter of BertForSequenceClassification. Raises UserError when there is no name."""
    module, _, kind = full.rpartition(".")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    name = _HEAD.get(module) or names.get_name(module.removeprefix("bert."))
    if name is None:
        raise UserError(f"GGUF has no name for the weight '{full}'", "export the student with --to onnx")
    return f"{name}.{kind}"


def dequantized(path: Path, student: Encoder) -> Encoder:
    """Return the student with the weights of a GGUF file, for a comparison without llama.cpp."""
    model = copy.deepcopy(student.model)
    stored = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    with torch.no_grad():
        for full, parameter in model.named_parameters():
            values = torch.from_numpy(stored[tensor_name(full, model.config.num_hidden_layers)].copy())
            parameter[: len(values)] = values
    return Encoder(student.labels, model, student.tokenizer)
