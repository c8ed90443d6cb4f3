"""Keys and values that had other names in earlier versions. In a dotted key, `*` matches any one part."""

from __future__ import annotations

OLD_KEYS: dict[str, str] = {
    "seeds.*.licence": "license",
    "seeds.*.on_bad_line": "on_bad_lines",
    "seeds.*.account": "made_by.account",
    "generate.samples": "num_generations",
    "teacher.attempts": "max_retries",
    "teachers.*.attempts": "max_retries",
    "teacher.licence": "license",
    "teachers.*.licence": "license",
    "teacher.tensor_parallel": "tensor_parallel_size",
    "teachers.*.tensor_parallel": "tensor_parallel_size",
    "teacher.data_parallel": "data_parallel_size",
    "teachers.*.data_parallel": "data_parallel_size",
    "teacher.memory_fraction": "gpu_memory_utilization",
    "teachers.*.memory_fraction": "gpu_memory_utilization",
    "curate.min_words": "length.min_words",
    "curate.max_words": "length.max_words",
    "train.student.hidden": "hidden_size",
    "train.epochs": "num_train_epochs",
    "train.warmup": "warmup_steps",
    "train.checkpoint_every": "save_steps",
    "train.keep_checkpoints": "save_total_limit",
    "train.validate_every": "eval_steps",
    "train.patience": "early_stopping_patience",
    "train.trackers": "report_to",
    "train.activation_checkpointing": "gradient_checkpointing",
    "train.micro_batch": "micro_batch_size",
}
"""Old dotted key → the current name of its last part."""

NOTES: dict[str, str] = {"attempts": "the first try no longer counts, so 5 is now 4"}
"""Old name → a sentence that says what else has changed."""

OLD_VALUES: dict[tuple[str, str], str] = {("strategy", "rationalise"): "rationalize"}
"""(dotted key, old value) → the current value with the same meaning."""


def sentence(key: str) -> str | None:
    """The sentence "KEY is now NEW" for an old key; None for a key that never existed."""
    new, note = new_name(key), NOTES.get(key.rpartition(".")[2])
    return f"{key} is now {new}" + (f" ({note})" if note else "") if new else None


def new_name(key: str) -> str | None:
    """The current dotted key for an old key; None for a key that never existed."""
    parts = key.split(".")
    for old, name in OLD_KEYS.items():
        pattern = old.split(".")
        if len(pattern) == len(parts) and all(p in ("*", q) for p, q in zip(pattern, parts, strict=True)):
            return ".".join([*parts[:-1], name])
    return None
