"""Keys and values that had another name in earlier versions. `*` stands for any one part of a dotted key."""

from __future__ import annotations

OLD_KEYS: dict[str, str] = {
    "seeds.*.licence": "license",
    "teacher.licence": "license",
    "teachers.*.licence": "license",
    "teacher.tensor_parallel": "tensor_parallel_size",
    "teachers.*.tensor_parallel": "tensor_parallel_size",
    "teacher.data_parallel": "data_parallel_size",
    "teachers.*.data_parallel": "data_parallel_size",
    "teacher.memory_fraction": "gpu_memory_utilization",
    "teachers.*.memory_fraction": "gpu_memory_utilization",
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
"""Dotted key → the name that its last part has now."""

OLD_VALUES: dict[tuple[str, str], str] = {("strategy", "rationalise"): "rationalize"}
"""(dotted key, value) → the value that means the same now."""


def new_name(key: str) -> str | None:
    """The dotted key that an old one has become; None for a key that was never known."""
    parts = key.split(".")
    for old, name in OLD_KEYS.items():
        pattern = old.split(".")
        if len(pattern) == len(parts) and all(p in ("*", q) for p, q in zip(pattern, parts, strict=True)):
            return ".".join([*parts[:-1], name])
    return None
