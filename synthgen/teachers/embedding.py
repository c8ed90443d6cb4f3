"""Embedding models: a transformers encoder whose last hidden states are pooled to one vector for each text.

The file modules.json of a sentence-transformers folder or repository describes the pooling, the projection (Dense) and
the normalization. Without this file, a vector is the mean of the hidden states of the text's tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from synthgen.errors import TeacherError
from synthgen.lm.files import ModelFiles, cannot_load
from synthgen.lm.load import checkpoint_activations, load_weights, loaded, pick_device
from synthgen.lm.tokens import tokenizer_hash
from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import Identity, Reply, Tick, no_tick
from synthgen.teachers.encoder import context_of, padded, token_ids

_POOLINGS = ("mean", "cls", "max")
_TYPES = "sentence_transformers.models."


class SentenceEncoder(nn.Module):
    """An encoder of texts. The last hidden states of `model` are pooled by 'mean', 'cls' or 'max', projected by `dense`
    if it is not None, and normalized if `normalize` is true.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: str = "mean",
        normalize: bool = False,
        dense: nn.Linear | None = None,
        context: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.dense = model, dense
        self.tokenizer, self.pooling, self.normalize = tokenizer, pooling, normalize
        self.context = min(context or 1 << 30, context_of(model.config, tokenizer))

    @classmethod
    def open(cls, section: TeacherSection) -> tuple[SentenceEncoder, str]:
        """Return (encoder, exact revision). Raises TeacherError when the model has a module of an unknown kind."""
        model, tokenizer, revision = load_encoder(section)
        if tokenizer.pad_token_id is None:
            raise TeacherError(f"the tokenizer of '{section.model}' has no padding token", "use another model")
        more: dict[str, Any] = {}
        for module in _json(section, "modules.json") or []:
            name, path = module["type"].rpartition(".")[2], module["path"]
            config = _json(section, f"{path}/config.json") or {}
            if name == "Pooling":
                more["pooling"] = _pooling(config, section.model)
            elif name == "Normalize":
                more["normalize"] = True
            elif name == "Dense" and config.get("activation_function", "").endswith("Identity"):
                more["dense"] = _dense(section, path, config)
            elif name != "Transformer":
                raise TeacherError(
                    f"'{section.model}' has a module of type {module['type']}, which synthgen does not know",
                    "use a model with only these modules: Transformer, Pooling, Dense without activation, Normalize",
                )
        lengths = _json(section, "sentence_bert_config.json") or {}
        return cls(model, tokenizer, context=lengths.get("max_seq_length"), **more), revision

    @property
    def width(self) -> int:
        """The dimension of the vectors."""
        return int(self.model.config.hidden_size if self.dense is None else self.dense.out_features)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return torch.device(self.model.device)

    def forward(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """The vectors (B, D) of B texts. Each text is given as a list of token ids."""
        batch = padded(ids, self.tokenizer.pad_token_id, self.device)
        h_BTD = self.model(**batch).last_hidden_state
        mask_BT1 = batch["attention_mask"][..., None].to(h_BTD.dtype)
        if self.pooling == "cls":
            pooled_BD = h_BTD[:, 0]
        elif self.pooling == "max":
            pooled_BD = h_BTD.masked_fill(mask_BT1 == 0, -torch.inf).amax(1)
        else:
            pooled_BD = (h_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        if self.dense is not None:
            pooled_BD = self.dense(pooled_BD)
        return nn.functional.normalize(pooled_BD, dim=-1) if self.normalize else pooled_BD

    def tokens(self, texts: Sequence[str], whole: bool = False) -> list[list[int]]:
        """Token ids of each text. Without `whole`, texts are truncated to the model's maximum number of tokens."""
        return token_ids(self.tokenizer, texts, None if whole else self.context)

    @torch.no_grad()
    def vectors(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """The vectors of the texts: float32 (N, D), on the CPU."""
        ids = self.tokens(texts)
        out = torch.empty(len(ids), self.width)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for begin in range(0, len(order), batch_size):
            places = order[begin : begin + batch_size]
            out[places] = self([ids[i] for i in places]).float().cpu()
        return out

    def activation_checkpointing_enable(self) -> None:
        """Turn on activation checkpointing. Models of transformers have a method with the same name."""
        checkpoint_activations(self.model)

    def save_pretrained(self, folder: Path) -> None:
        """Write weights and modules.json in the format of sentence-transformers. The tokenizer is saved separately."""
        self.model.save_pretrained(folder)
        width = int(self.model.config.hidden_size)
        pooling = {"word_embedding_dimension": width, "pooling_mode_cls_token": self.pooling == "cls"}
        pooling |= {
            "pooling_mode_mean_tokens": self.pooling == "mean",
            "pooling_mode_max_tokens": self.pooling == "max",
        }
        parts: list[tuple[str, dict[str, Any]]] = [("Pooling", pooling)]
        if self.dense is not None:
            identity = "torch.nn.modules.linear.Identity"
            sizes = {"in_features": width, "out_features": self.width, "bias": self.dense.bias is not None}
            parts.append(("Dense", {**sizes, "activation_function": identity}))
        if self.normalize:
            parts.append(("Normalize", {}))
        modules = [{"idx": 0, "name": "0", "path": "", "type": f"{_TYPES}Transformer"}]
        for number, (name, config) in enumerate(parts, 1):
            path = folder / f"{number}_{name}"
            path.mkdir(parents=True)
            (path / "config.json").write_text(json.dumps(config, indent=2))
            if name == "Dense" and self.dense is not None:
                save_file({f"linear.{k}": v for k, v in self.dense.state_dict().items()}, path / "model.safetensors")
            modules.append({"idx": number, "name": str(number), "path": path.name, "type": f"{_TYPES}{name}"})
        (folder / "modules.json").write_text(json.dumps(modules, indent=2))
        lengths = {"max_seq_length": self.context, "do_lower_case": False}
        (folder / "sentence_bert_config.json").write_text(json.dumps(lengths, indent=2))


def load_encoder(section: TeacherSection) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """Load a model without a head. See `load_weights`. For an encoder-decoder model such as T5, only the encoder is
    loaded.
    """
    name, arguments = ModelFiles.find(section.model, section.revision).description()
    config = loaded(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=False, **arguments))
    return load_weights(section, encoder_class(config))


def encoder_class(config: PreTrainedConfig) -> type:
    """The class of transformers that loads a model with this config as an encoder of texts."""
    found = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    return AutoModelForTextEncoding if getattr(found, "__name__", "").endswith("EncoderModel") else AutoModel


def _pooling(config: dict[str, Any], name: str) -> str:
    """The kind of pooling ('mean', 'cls' or 'max') in a pooling config, which may have either of the two formats of
    sentence-transformers.
    """
    flags = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
    known = [value for flag, value in flags.items() if config.get(flag)]
    others = [
        flag for flag, on in config.items() if flag.startswith("pooling_mode_") and on is True and flag not in flags
    ]
    found = [*known, *others] if "pooling_mode" not in config else [str(config["pooling_mode"])]
    if len(found) != 1 or found[0] not in _POOLINGS:
        raise TeacherError(
            f"'{name}' pools by {' and '.join(found) or 'nothing'}", "use a model that pools by mean, cls or max"
        )
    return found[0]


def _dense(section: TeacherSection, path: str, config: dict[str, Any]) -> nn.Linear:
    layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    file = _file(section, f"{path}/model.safetensors")
    if file is None:
        raise TeacherError(
            f"'{section.model}' has no {path}/model.safetensors",
            "convert the weights to .safetensors; pickle files are not loaded",
        )
    layer.load_state_dict({k.removeprefix("linear."): v for k, v in load_file(file).items()})
    return layer


def _file(section: TeacherSection, name: str) -> str | None:
    """The path of a file of the model, or None if the model has no such file. Raises TeacherError when the hub cannot
    be reached and its cache does not say whether there is such a file. Without it, vectors might be pooled wrongly.
    """
    files = ModelFiles.find(section.model, section.revision)
    if files.place is not None:
        path = files.place / name
        return str(path) if path.exists() else None
    try:
        return hf_hub_download(section.model, name, revision=files.asked)
    except RemoteEntryNotFoundError:
        return None
    except Exception as error:  # the hub client raises several kinds of error
        if try_to_load_from_cache(section.model, name, revision=files.asked) is not None:
            return None  # the cache states that the hub has no such file
        raise cannot_load(section.model, error) from None


def _json(section: TeacherSection, name: str) -> Any:
    path = _file(section, name)
    return json.loads(Path(path).read_text()) if path else None


class EmbeddingModel:
    """A loaded embedding model as a teacher (see `synthgen.teachers.base.Teacher`). This teacher can only embed texts.

    During generation, the model only checks which texts fit into its context. The texts that fit become rows. The
    vectors of the texts are computed when a student is trained.
    """

    can = frozenset({"embed"})

    def __init__(self, model: SentenceEncoder, identity: Identity, batch_size: int) -> None:
        self.model, self.tokenizer, self.identity, self.batch_size = model, model.tokenizer, identity, batch_size

    @classmethod
    def open(cls, section: TeacherSection) -> EmbeddingModel:
        """Load the model that the recipe names. Raises TeacherError."""
        model, revision = SentenceEncoder.open(section)
        identity: Identity = {
            "engine": "transformers",
            "model": section.model,
            "revision": revision,
            "dtype": section.dtype,
            "tokenizer": tokenizer_hash(model.tokenizer),
            "vocab_size": int(model.model.config.vocab_size),
            "license": section.license,
        }
        return cls(model.eval().to(pick_device(section.device)), identity, section.batch_size)

    def embed(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request, with the token ids of the request's text. When the model would truncate the text,
        the reply has a failure instead.
        """
        replies = []
        for ids in self.model.tokens([r.question for r in requests], whole=True):
            reason = f"text of {len(ids)} tokens exceeds the context of {self.model.context}"
            fits = len(ids) <= self.model.context
            replies.append(Reply("", ids, [], "stop") if fits else Reply(failure=("context", reason)))
        return replies

    def sample(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """Raises TeacherError, because an embedding model generates no text."""
        raise self._only_embeds("writes no text")

    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """Raises TeacherError, because an embedding model has no classes."""
        raise self._only_embeds("has no classes")

    def score(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """Raises TeacherError, because an embedding model has no distribution over tokens."""
        raise self._only_embeds("scores no text")

    def close(self) -> None:
        """Does nothing, because the model's memory is freed with the object."""

    def _only_embeds(self, what: str) -> TeacherError:
        return TeacherError(f"'{self.identity['model']}' is an embedding model and {what}", "use strategy embed")
