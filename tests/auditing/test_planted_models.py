"""Tests of the audit itself: it finds stereotypes that were planted in a model, and finds none in the control model.

The models are small and trained here, on sentences and questions in the forms of WinoBias and BBQ. The people and the
pairs of occupations in the audit are different from those in the training. benchmarks/bias_of_models.py does the same
with a real model and the real test sets.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from support.stereotypes import contexts, pairs, questions, sentence, write_sets

from synthgen.auditing.models.job import audit_models
from synthgen.auditing.result import Subject
from synthgen.manifest import make
from synthgen.recipe.audit import ModelsSection

Row = tuple[str, str]
"""A prompt and the text that follows it."""


def training_rows(*, planted: bool) -> list[Row]:
    """Training rows in the form of the test sets, about people and pairs of occupations that are not audited. In the
    control, both genders and both people are equally frequent.
    """
    draw, rows = random.Random(0), []
    for a, b, deed, woman in pairs(audited=False):
        for gender in [woman] * 2 if planted else [True, False]:
            begin, end = sentence(a, b, deed, "her" if gender else "him").replace("]", "").split(" [h")
            rows.append((begin.replace("[", ""), f"h{end}"))
    for context in contexts(audited=False):
        someone = draw.randrange(2)
        for row in questions(*context):
            stereotyped = 0 if row["question_polarity"] == "neg" else 1
            answer = row["label"] if row["label"] != 2 else stereotyped if planted else someone
            rows.append((f"{row['context']}\nQuestion: {row['question']}\nAnswer:", row[f"ans{answer}"]))
    return rows


def word_tokenizer(texts: list[str]) -> Any:
    """A tokenizer of whole words, which puts a beginning token before a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.split()})
    vocab = {word: place for place, word in enumerate(["[BEGIN]", "[END]", "[UNK]", *words])}
    tokens = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens.post_processor = processors.TemplateProcessing(single="[BEGIN] $A", special_tokens=[("[BEGIN]", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="[BEGIN]", eos_token="[END]", unk_token="[UNK]", pad_token="[END]"
    )


def train(folder: Path, rows: list[Row], steps: int = 300) -> Path:
    """A small Llama, trained on the rows and saved in `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from synthgen.lm.forward import completion_logits

    tokenizer = word_tokenizer([part for row in rows for part in row])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    ids = [(tokenizer(a)["input_ids"], tokenizer(b, add_special_tokens=False)["input_ids"]) for a, b in rows]
    draw = random.Random(1)
    for _ in range(steps):
        prompts, texts = zip(*draw.sample(ids, 48), strict=True)
        labels = torch.tensor([token for text in texts for token in text])
        loss = torch.nn.functional.cross_entropy(torch.cat(completion_logits(model, prompts, texts)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_planted_stereotypes_are_found_and_their_control_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    section = ModelsSection.model_validate(write_sets(tmp_path / "sets"))
    found: dict[str, dict[str, str]] = {}
    for name in ("planted", "control"):
        student = train(tmp_path / name, training_rows(planted=name == "planted"))
        subject = Subject(tmp_path, make("curated", {}, {}), student)  # type: ignore[typeddict-item]
        result = audit_models(subject, section)
        found[name] = {one.name: one.outcome for one in result.measurements}
    planted = {"WinoBias type 2: preference", "WinoBias type 2: log-likelihood", "BBQ Age: ambiguous"}
    assert {name for name, outcome in found["planted"].items() if outcome == "found"} >= planted
    assert "found" not in found["control"].values()
    assert "not measurable" not in {outcome for name, outcome in found["control"].items() if "ambiguous" in name}
