"""The basic student: an MLP on hashed word and character n-grams. Trained with torch, run with numpy alone.

classifier = Classifier.load("runs/demo-classify/student")
classifier.predict(["where is my parcel?"])          # (1, labels) probabilities
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from synthgen import durable
from synthgen.errors import CorpusError

if TYPE_CHECKING:
    from synthgen.recipe import TrainSection
    from synthgen.records import Record
    from synthgen.tables.students import ClassifierStudent
    from synthgen.ui import UI

Array = np.ndarray[Any, np.dtype[Any]]


def features(text: str, buckets: int) -> tuple[Array, Array]:
    """(bucket ids, weights) of words, word pairs and 3- to 5-character pieces; weights log(1 + count), unit length."""
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
    """softmax(relu(Σ wᵢ E[i] + b) · O + c) over `labels`."""

    labels: list[str]
    embed: Array
    bias: Array
    out: Array
    out_bias: Array

    @property
    def parameters(self) -> int:
        return sum(a.size for a in (self.embed, self.bias, self.out, self.out_bias))

    def predict(self, texts: Sequence[str]) -> Array:
        """Probabilities, (texts, labels)."""
        hidden = np.empty((len(texts), self.embed.shape[1]), np.float32)
        for row, text in enumerate(texts):
            ids, weights = features(text, len(self.embed))
            hidden[row] = weights @ self.embed[ids]
        z = np.maximum(hidden + self.bias, 0) @ self.out + self.out_bias
        z = np.exp(z - z.max(-1, keepdims=True))
        return np.asarray(z / z.sum(-1, keepdims=True))

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """From model.safetensors and config.json."""
        from safetensors.numpy import load_file

        folder = Path(folder)
        if not (folder / "config.json").exists():
            raise CorpusError(f"'{folder}' holds no student (no config.json)", "train one: `distill train RUN`")
        labels = json.loads((folder / "config.json").read_text())["labels"]
        return cls(labels, **load_file(folder / "model.safetensors"))

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


class Predicts(Protocol):
    """A student that gives probabilities of `labels`; `parameters` is how many numbers it holds."""

    labels: list[str]

    @property
    def parameters(self) -> int: ...

    def predict(self, texts: Sequence[str]) -> Array: ...


def open_classifier(kind: str, folder: str | Path) -> Predicts:
    """A trained student of kind 'classifier' or 'encoder'."""
    if kind == "classifier":
        return Classifier.load(folder)
    from distill.students.encoder import Encoder

    return Encoder.load(folder)


def prompt_text(record: Record) -> str:
    """What the student reads: the last user message of its prompt."""
    return str(next(m["content"] for m in reversed(record.prompt) if m["role"] == "user"))


def train_classifier(section: TrainSection, source: Path, made: dict[str, Any], folder: Path, ui: UI) -> dict[str, Any]:
    """Train on the teacher's class probabilities; with `baseline`, also on its hard labels alone."""
    from distill.data import rows

    assert section.student.kind == "classifier"
    found = rows(source, "train", section.share)
    if not found or any(not record.label_probs for record, _ in found):
        raise CorpusError(f"{source} has no class probabilities to learn from", "generate with strategy: classify")
    curves = {}
    arms = {"distilled": (folder, section.kd_weight)}
    if section.baseline:
        arms["cross-entropy"] = (folder / "baseline", 0.0)
    steps = section.num_train_epochs * -(-len(found) // section.batch_size)
    steps = min(steps, section.max_steps or steps)
    with ui.progress("train", len(arms), "students") as bar:
        for arm, (target, kd_weight) in arms.items():
            there = (target / "metrics.jsonl").exists()
            if not there:
                classifier, metrics = _fit(section, section.student, found, made["labels"], kd_weight, steps)
                classifier.save(target)
                durable.write_text(target / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))
            curves[arm] = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()]
            bar.advance(1, resumed=there)
    return {
        "kind": "classifier",
        "steps": steps,
        "rows": len(found),
        "rows kept by curation": sum(kept for _, kept in found),
        "metrics": curves,
    }


def _fit(
    section: TrainSection,
    student: ClassifierStudent,
    found: Sequence[tuple[Record, bool]],
    labels: list[str],
    kd_weight: float,
    steps: int,
) -> tuple[Classifier, list[dict[str, float]]]:
    """Distillation over every row, cross-entropy with the teacher's label over kept ones (over all at weight 0)."""
    import torch
    from torch.nn import functional

    from distill.data import batch_rows

    torch.manual_seed(section.seed)
    bags = [features(prompt_text(record), student.buckets) for record, _ in found]
    p_NL = torch.tensor(np.array([record.label_probs for record, _ in found], np.float32))
    kept_N = torch.tensor([kept for _, kept in found])
    embed = torch.nn.EmbeddingBag(student.buckets, student.hidden_size, mode="sum")
    torch.nn.init.normal_(embed.weight, std=0.1)
    bias = torch.nn.Parameter(torch.zeros(student.hidden_size))
    out = torch.nn.Linear(student.hidden_size, len(labels))
    optimizer = torch.optim.AdamW(
        [*embed.parameters(), bias, *out.parameters()], lr=section.learning_rate, weight_decay=section.weight_decay
    )
    metrics = []
    for step in range(steps):
        batch = batch_rows(step, len(found), section.batch_size, section.seed)
        ids = torch.from_numpy(np.concatenate([bags[i][0] for i in batch]))
        weights = torch.from_numpy(np.concatenate([bags[i][1] for i in batch]))
        offsets = torch.tensor([0, *np.cumsum([len(bags[i][0]) for i in batch])[:-1]])
        weights = functional.dropout(weights, student.dropout)
        hidden = torch.relu(embed(ids, offsets, per_sample_weights=weights) + bias)
        logq = out(functional.dropout(hidden, student.dropout)).log_softmax(-1)
        p, kept = p_NL[batch], kept_N[batch]
        kd = functional.kl_div(logq, p, reduction="batchmean")
        ce_N = functional.nll_loss(logq, p.argmax(-1), reduction="none")
        ce = (ce_N * kept).sum() / kept.sum().clamp(min=1) if kd_weight else ce_N.mean()
        loss = kd_weight * kd + (1 - kd_weight) * ce
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        metrics.append({"step": step, "loss": float(loss.detach()), "distillation": float(kd.detach())})
    arrays = [t.detach().numpy() for t in (embed.weight, bias, out.weight.T.contiguous(), out.bias)]
    return Classifier(labels, *arrays), metrics
