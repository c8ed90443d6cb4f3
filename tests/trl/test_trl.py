"""TRL trains on the files of `synthgen export`, and learns the tokens that a student of `distill train` learns.

Each trainer does two steps with a small model that has SmolLM2's tokenizer. The data sets are read with `load_dataset`,
as TRL's own scripts do.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

import synthgen
from distill.streaming.conversations import reader_of
from distill.streaming.tokencache import Row
from synthgen.datasets import open_dataset, records, source_of
from synthgen.lm.tokens import Tokens

# Shows tools and calls. TRL finds the assistant's tokens by the marks {% generation %}.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
    "{% if m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<|im_end|>"
    "{% endgeneration %}\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def function(name: str, **types: str) -> dict:
    properties = {key: {"type": value} for key, value in types.items()}
    about = {"name": name, "description": name, "parameters": {"type": "object", "properties": properties}}
    return {"type": "function", "function": about}


def called(name: str, **arguments: object) -> dict:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def said(role: str, content: str) -> dict:
    return {"role": role, "content": content}


CONVERSATIONS = [
    {
        "id": "weather",
        "messages": [
            said("system", "Be brief."),
            said("user", "How is Bergen?"),
            called("weather", city="Bergen"),
            said("tool", "rain"),
            said("assistant", "It rains."),
        ],
        "tools": [function("weather", city="string")],
    },
    {
        "id": "sum",
        "messages": [said("user", "2 + 2?"), called("add", a=2, b=2), said("tool", "4"), said("assistant", "4.")],
        "tools": [function("add", a="integer", b="integer")],
    },
    {
        "id": "talk",
        "messages": [
            said("user", "Hello!"),
            said("assistant", "Hi."),
            said("user", "Who are you?"),
            said("assistant", "I am a model."),
        ],
    },
    {"id": "short", "messages": [said("user", "Sky?"), said("assistant", "Blue.")], "topic": "colors"},
]
PAIRS = [
    {"id": "p0", "prompt": [said("user", "Sky?")], "chosen": [said("assistant", "Blue.")]},
    {"id": "p1", "prompt": [said("system", "Be brief."), said("user", "2 + 2?")], "chosen": [said("assistant", "4")]},
]
PAIRS = [{**pair, "rejected": [said("assistant", "I do not know.")], "score_chosen": 5} for pair in PAIRS]


@pytest.fixture(scope="module")
def model(tiny, tmp_path_factory) -> Path:
    """The small model with `TEMPLATE` as its chat template."""
    folder = tmp_path_factory.mktemp("model")
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def exported(tmp_path):
    """A function that exports rows, or a run, and returns the training split that `load_dataset` reads."""

    def export(source: list[dict] | Path, to: str) -> Dataset:
        if isinstance(source, list):
            path = tmp_path / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in source))
            source = path
        synthgen.export(source, to, tmp_path / to)
        return load_dataset(str(tmp_path / to), cache_dir=str(tmp_path / "cache"))["train"]

    return export


def settings(tmp_path: Path) -> dict:
    few = {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1}
    return {"output_dir": str(tmp_path / "trained"), **few, "report_to": "none", "use_cpu": True, "bf16": False}


def losses(trainer) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def learned_by_trl(trainer, ids: list[str]) -> dict[str, list[int]]:
    return {
        name: [token for token in row["labels"] if token != -100]
        for name, row in zip(ids, trainer.train_dataset, strict=True)
    }


def learned_here(model: Path, path: Path) -> dict[str, list[int]]:
    """The tokens that a student learns from the rows of a data set, in the order of the conversation."""
    reader = reader_of(Tokens.of(AutoTokenizer.from_pretrained(model), None), ())
    learned = {}
    for _, record in records(open_dataset(source_of(path)), "", None):
        names = ("prompt", "completion", "tools", "teaches")
        [turns] = reader.read([Row(record.id, True, **{name: getattr(record, name) for name in names})])
        ordered = sorted(turns, key=lambda turn: len(turn.prompt))
        learned[record.id] = [token for turn in ordered for token in turn.completion]
    return learned


def test_conversations_with_tools(exported, model, tmp_path):
    rows = exported(CONVERSATIONS, "messages")
    config = SFTConfig(assistant_only_loss=True, **settings(tmp_path))
    trainer = SFTTrainer(str(model), args=config, train_dataset=rows)
    assert learned_by_trl(trainer, rows["id"]) == learned_here(model, tmp_path / "rows.jsonl")
    assert len(losses(trainer)) == 2


@pytest.mark.parametrize("to", ["prompt-completion", "hub"])
def test_prompts_and_completions(exported, model, tmp_path, to):
    last = [{**row, "teaches": "last"} for row in CONVERSATIONS]
    rows = exported(last, to)
    config = SFTConfig(completion_only_loss=True, **settings(tmp_path))
    trainer = SFTTrainer(str(model), args=config, train_dataset=rows)
    assert learned_by_trl(trainer, rows["id"]) == learned_here(model, tmp_path / "rows.jsonl")
    assert len(losses(trainer)) == 2


def test_the_kept_rows_of_a_run(exported, model, task, tmp_path):
    recipe, run = synthgen.load_recipe(task(generate={"max_new_tokens": 6})), tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    rows = exported(run, "hub")
    assert {"teacher", "sources", "prompt_token_ids"} <= set(rows.column_names)
    trainer = SFTTrainer(str(model), args=SFTConfig(**settings(tmp_path)), train_dataset=rows)
    show = AutoTokenizer.from_pretrained(model).decode
    texts = {name: show(ids) for name, ids in learned_by_trl(trainer, rows["id"]).items()}
    completions = [f"{one[0]['content']}<|im_end|>" for one in rows["completion"]]
    assert texts == dict(zip(rows["id"], completions, strict=True))
    assert len(losses(trainer)) == 2


@pytest.mark.parametrize("to", ["preference", "hub"])
def test_pairs(exported, model, tmp_path, to):
    rows = exported(PAIRS, to)
    assert rows[0]["score_chosen"] == 5
    trainer = DPOTrainer(str(model), args=DPOConfig(**settings(tmp_path)), train_dataset=rows)
    assert len(losses(trainer)) == 2


def test_chosen_and_rejected_completions(exported, model, tmp_path):
    rows = exported(PAIRS, "unpaired-preference")
    assert sorted(rows["label"]) == [False, False, True, True]
    trainer = KTOTrainer(str(model), args=KTOConfig(**settings(tmp_path)), train_dataset=rows)
    assert len(losses(trainer)) == 2
