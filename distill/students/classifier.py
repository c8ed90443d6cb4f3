"""Classifiers: multilayer perceptrons on hashed word and character n-grams. These classifiers need only numpy to run.

classifier = Classifier.load("runs/demo-classify/student")
classifier.predict(["where is my parcel?"])          # (1, labels) probabilities
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.intervals import Array
from synthgen import durable
from synthgen.errors import CorpusError
from synthgen.files import check_regular, read_object

if TYPE_CHECKING:
    import torch


def features(text: str, buckets: int) -> tuple[Array, Array]:
    """Return (bucket ids, weights) of a text's words, word pairs and 3- to 5-character pieces. Weights are log(1 +
    count), scaled to unit length.
    """
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    pieces = [f"w {w}" for w in words] + [f"p {a} {b}" for a, b in pairwise(words)]
    for word in words:
        padded = f"<{word}>"
        pieces += [padded[i : i + n] for n in (3, 4, 5) for i in range(len(padded) - n + 1)]
    counts = Counter(zlib.crc32(piece.encode()) % buckets for piece in pieces)
    ids = np.fromiter(counts, np.int64, len(counts))
    weights = np.log1p(np.fromiter(counts.values(), np.float32, len(counts)))
    return ids, weights / max(float(np.linalg.norm(weights)), 1e-9)


@dataclass
class Classifier:
    """A trained classifier: softmax(relu(Σ wᵢ E[i] + b) · O + c) over `labels`.

    E is `embed`, b `bias`, O `out` and c `out_bias`. i and wᵢ are the bucket ids and weights of `features`.
    """

    labels: list[str]
    embed: Array
    bias: Array
    out: Array
    out_bias: Array

    @property
    def parameters(self) -> int:
        return sum(a.size for a in (self.embed, self.bias, self.out, self.out_bias))

    def predict(self, texts: Sequence[str]) -> Array:
        """Return the label probabilities, (texts, labels)."""
        hidden = np.empty((len(texts), self.embed.shape[1]), np.float32)
        for row, text in enumerate(texts):
            ids, weights = features(text, len(self.embed))
            hidden[row] = weights @ self.embed[ids]
        z = np.maximum(hidden + self.bias, 0) @ self.out + self.out_bias
        z = np.exp(z - z.max(-1, keepdims=True))
        return np.asarray(z / z.sum(-1, keepdims=True))

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """Load a classifier from model.safetensors and config.json. Raises CorpusError when there is no config.json."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise CorpusError(f"'{folder}' holds no student (no config.json)", "train one: `distill train RUN`")
        again = "train again: `distill train RUN --fresh`"
        labels = read_object(folder / "config.json", again).get("labels")
        check_regular(folder / "model.safetensors", again)
        try:
            tensors = load_file(folder / "model.safetensors")
            if not isinstance(labels, list) or len(labels) != len(tensors["out_bias"]):
                raise ValueError("config.json and the weights do not have the same labels")
            return cls([str(label) for label in labels], **tensors)
        except (SafetensorError, ValueError, TypeError, LookupError) as error:
            raise CorpusError(f"the student at {folder} is damaged: {error}", again) from None

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json."""
        from safetensors.numpy import save

        tensors = {"embed": self.embed, "bias": self.bias, "out": self.out, "out_bias": self.out_bias}
        config = {
            "model_type": "synthgen-hashed-mlp",
            "labels": self.labels,
            "buckets": len(self.embed),
            "hidden": self.embed.shape[1],
        }
        durable.write_bytes(folder / "model.safetensors", save(tensors))
        durable.write_json(folder / "config.json", config)


def open_student(folder: str | Path, batch_size: int, device: torch.device) -> Classifier:
    """Open a trained classifier. See `Kind.open`. This kind of student always runs on the CPU."""
    return Classifier.load(folder)
