"""Runs exported models and the original student through one interface.

    model = open_model("onnxruntime", "runs/demo/student/onnx/model_int8.onnx")
    model.feed(prompt)        # logits (tokens, vocabulary) in float32; row t predicts the token after token t
    model.feed([token])       # the next step; the cache holds the earlier tokens
    model.reset()

A runtime is imported when it is opened, so that a process that measures one runtime loads no other runtime.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from synthgen.errors import UserError

Array = np.ndarray[Any, np.dtype[Any]]
Predict = Callable[[Sequence[str]], Array]
CONTEXT = 2048  # context length for llama.cpp, which allocates memory for the whole context when a model is opened


class Model(Protocol):
    """A decoder with its key-value cache."""

    def feed(self, ids: Sequence[int]) -> Array:
        """Read `ids` after the tokens of earlier calls. Returns the logits (len(ids), vocabulary) after each token."""
        ...

    def reset(self) -> None:
        """Clear the cache."""
        ...


def threads() -> int:
    """The number of threads for every runtime: OMP_NUM_THREADS, or the number of CPU cores."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def open_model(runtime: str, path: str | Path) -> Model:
    """Open a decoder.

    `path` is a folder for the runtime "torch", and a file for "onnxruntime" and "llama.cpp". For "transformers", `path`
    is a GGUF file, which is dequantized.
    """
    runtimes: dict[str, Callable[[Path], Model]]
    runtimes = {"torch": _Torch, "transformers": _Torch, "onnxruntime": _OnnxRuntime, "llama.cpp": _LlamaCpp}
    return runtimes[runtime](Path(path))


class _Torch:
    """The student in float32 with transformers. The weights of a .gguf file are dequantized."""

    def __init__(self, path: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from synthgen.lm.load import loaded

        torch.set_num_threads(threads())
        where, more = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
        # a GGUF file is not in the safetensors format, but is as safe, because it has no pickles
        safe = path.suffix != ".gguf" or None
        with redirect_stderr(io.StringIO()):  # hides the progress bar of transformers
            self.model = loaded(
                str(path),
                lambda: AutoModelForCausalLM.from_pretrained(
                    where, dtype=torch.float32, use_safetensors=safe, trust_remote_code=False, **more
                ),
            ).eval()
        self.torch = torch
        self.reset()

    def reset(self) -> None:
        from transformers import DynamicCache

        self.cache = DynamicCache(config=self.model.config)

    def feed(self, ids: Sequence[int]) -> Array:
        with self.torch.inference_mode():
            out = self.model(self.torch.tensor([list(ids)]), past_key_values=self.cache, use_cache=True)
        return np.asarray(out.logits[0].float().numpy())


class _OnnxRuntime:
    """A graph of `distill.exporting.onnx`. Inputs of the graph include the keys and values of earlier tokens. The
    outputs include the keys and values of all tokens.
    """

    def __init__(self, path: Path) -> None:
        self.session = _session(path)
        self.past = [i for i in self.session.get_inputs() if i.name.startswith("past_key_values.")]
        self.reset()

    def reset(self) -> None:
        self.cache = {i.name: np.zeros((1, int(i.shape[1]), 0, int(i.shape[3])), np.float32) for i in self.past}
        self.seen = 0

    def feed(self, ids: Sequence[int]) -> Array:
        stop = self.seen + len(ids)
        logits, *present = self.session.run(
            None,
            {
                "input_ids": np.array([list(ids)], np.int64),
                "attention_mask": np.ones((1, stop), np.int64),
                "position_ids": np.arange(self.seen, stop, dtype=np.int64)[None],
                **self.cache,
            },
        )
        self.cache = dict(zip((i.name for i in self.past), present, strict=True))
        self.seen = stop
        return np.asarray(logits[0])


class _LlamaCpp:
    """llama.cpp through llama-cpp-python. The option `logits_all` makes llama.cpp return the logits of every token."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        self.model = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT, n_threads=threads(), n_threads_batch=threads(), logits_all=True, verbose=False
        )

    def reset(self) -> None:
        self.model.reset()

    def feed(self, ids: Sequence[int]) -> Array:
        before = self.model.n_tokens
        self.model.eval(list(ids))
        return np.array(self.model.scores[before : self.model.n_tokens])


def open_mlp(runtime: str, path: Path) -> Predict:
    """Open an MLP on hashed n-grams. Returns a function from texts to probabilities (texts, labels).

    `path` is the student's folder for the runtime "numpy", and otherwise an ONNX graph with config.json in the same
    folder.
    """
    from distill.students.classifier import Classifier, features

    if runtime == "numpy":
        return Classifier.load(path).predict
    session = _session(path)
    buckets = json.loads((path.parent / "config.json").read_text())["buckets"]

    def predict(texts: Sequence[str]) -> Array:
        ids, weights = padded([features(text, buckets) for text in texts])
        return np.asarray(session.run(None, {"ids": ids, "weights": weights})[0])

    return predict


def open_encoder(runtime: str, path: Path) -> Predict:
    """Open an encoder classifier. Returns a function from texts to probabilities (texts, labels).

    `path` is the student's folder for the runtime "torch", and an exported file for "onnxruntime" and "llama.cpp".
    """
    return {"torch": _transformers, "onnxruntime": _encoder, "llama.cpp": _bert}[runtime](path)


def _transformers(folder: Path) -> Predict:
    from distill.students.encoder import Encoder

    return Encoder.load(folder).predict


def _encoder(path: Path) -> Predict:
    session, read = _session(path), reader(path.parent)

    def predict(texts: Sequence[str]) -> Array:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = []
        for begin in range(0, len(order), 64):  # batches of texts with similar lengths
            ids, mask = read([texts[i] for i in order[begin : begin + 64]])
            found.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
        return _softmax(np.concatenate(found)[np.argsort(order)])

    return predict


def _bert(path: Path) -> Predict:
    """Open a GGUF classifier with llama.cpp, which also tokenizes the texts. A text that is too long is truncated, and
    still ends with [SEP].
    """
    import gguf
    import llama_cpp

    most = int(gguf.GGUFReader(path).fields["bert.context_length"].contents())
    model = llama_cpp.Llama(
        str(path),
        embedding=True,
        pooling_type=llama_cpp.LLAMA_POOLING_TYPE_RANK,
        n_ctx=most,
        n_batch=most,
        n_ubatch=most,  # a text must fit into one batch
        n_threads=threads(),
        n_threads_batch=threads(),
        verbose=False,
    )
    labels = int(llama_cpp.llama_model_n_cls_out(model.model))
    batch = llama_cpp.llama_batch_init(most, 0, 1)

    def scores(text: str) -> Array:
        ids = model.tokenize(text.encode(), special=False)  # the student, too, reads "[SEP]" in a text as characters
        ids = ids if len(ids) <= most else [*ids[: most - 1], ids[-1]]
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        if llama_cpp.llama_encode(model.ctx, batch):
            raise UserError(f"llama.cpp could not read a text of {len(ids)} tokens")
        return np.array(llama_cpp.llama_get_embeddings_seq(model.ctx, 0)[:labels])

    return lambda texts: _softmax(np.stack([scores(text) for text in texts]))


def _softmax(z: Array) -> Array:
    z = z.astype(np.float64)
    z = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(z / z.sum(-1, keepdims=True))


def reader(folder: Path) -> Callable[[Sequence[str]], tuple[Array, Array]]:
    """Return a function from texts to input_ids and attention_mask (texts, tokens)."""
    from tokenizers import Tokenizer

    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.encode_special_tokens = True  # the student, too, reads special tokens in a text as characters
    facts = json.loads((folder / "predict.json").read_text())
    tokens.enable_truncation(min(facts["max_length"], 1 << 30))
    tokens.no_padding()

    def read(texts: Sequence[str]) -> tuple[Array, Array]:
        rows = [found.ids or [facts["pad"]] for found in tokens.encode_batch(list(texts))]
        width = max(len(row) for row in rows)
        ids = np.array([row + [facts["pad"]] * (width - len(row)) for row in rows], np.int64)
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)
        return ids, mask

    return read


def padded(bags: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return ids and weights, each (texts, pieces). Texts with fewer pieces are filled with pieces of weight 0."""
    shape = (len(bags), max([1, *(len(ids) for ids, _ in bags)]))
    ids, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    for row, (some, theirs) in enumerate(bags):
        ids[row, : len(some)], weights[row, : len(theirs)] = some, theirs
    return ids, weights


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
