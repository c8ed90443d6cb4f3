"""The files that training and export write into their folders. See `synthgen.outputs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from synthgen import durable
from synthgen.errors import CorpusError
from synthgen.files import is_regular
from synthgen.outputs import AUDITED, SHARD, Output, corpus_files
from synthgen.tables.formats import MODEL_FORMATS
from synthgen.tables.students import KINDS

_TOKENIZER = (
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|vocab-src|vocab-tgt|target_vocab)\.json",
    r"(byte_maps|emoji|entity_vocab|normalizer|word_pronunciation|word_shape)\.json",
    r"(spiece|sentencepiece|sentencepiece\.bpe|spm|spm_char|tokenizer)\.model",
    r"(vocab|merges|dict)\.txt",
    r"(source|target)\.spm",
    r"bpe\.codes|prophetnet\.tokenizer",
    r"chat_template\.(jinja|json)",
    r"additional_chat_templates/[^/]+\.jinja",
)
_MODEL = (
    r"(config|generation_config|modules|sentence_bert_config)\.json",
    r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?",
    r"\d+_(Pooling|Dense|Normalize)/(config\.json|model\.safetensors)",
    r"adapter/(README\.md|adapter_config\.json|adapter_model\.safetensors)",
    r"adapter/base/((config|generation_config)\.json|model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?)",
    *_TOKENIZER,
)
_CHECKPOINT = r"checkpoints/(distilled|cross-entropy)((-\d{7}|-best)\.safetensors|\.jsonl)"
_EXPORT = (r"export\.json", r"README\.md", r"NOTICE\.md", r"config\.json|generation_config\.json", *_TOKENIZER)
PARTS = (
    "baseline",
    "teacher",
    "corpus",
    "audit",
    "hidden",
    "cache",
    "checkpoints",
    "adapter",
    "curve",
    "trackers",
    "ledger",
)
"""The folders inside a student's folder."""
_CORPUS = corpus_files("rejected")
_SEGMENT = SHARD.replace("parquet", "bin")

CHECKPOINTS = Output("distill train", (), (_CHECKPOINT,))
ADOPTED = Output("distill train", (("inputs.json", '"dataset"'),), _CORPUS)


def trained() -> Output:
    """The files that training writes into a student's folder, for all kinds and formats in the tables."""
    names = (*_MODEL, *(pattern for kind in KINDS.values() for pattern in kind.files))
    files = (
        r"(training|evaluation|curve)\.json",
        rf"export-({'|'.join(MODEL_FORMATS)})\.json",
        # this file marks the weights in its folder as complete, so it must be deleted before the weights
        r"(baseline/)?metrics\.jsonl",
        _CHECKPOINT,
        r"README\.md",
        r"NOTICE\.md",
        *(f"((baseline|teacher)/)?({pattern})" for pattern in names),
        *(f"{name}/({pattern})" for name, entry in MODEL_FORMATS.items() for pattern in (*_EXPORT, *entry.files)),
        r"trackers/.+",  # the trackers choose the file names
    )
    return Output(
        "distill train",
        (("inputs.json", '"curated_sha256"'), ("corpus/inputs.json", '"dataset"')),
        (*(f"(curve/[^/]+/)?({pattern})" for pattern in files), r"(curve/[^/]+/)?inputs\.json"),
        (
            *(f"corpus/({pattern})" for pattern in _CORPUS),
            *(f"audit/({pattern})" for pattern in AUDITED.files),
            r"recipe\.yaml",
            r"hidden/.+/(layer-\d+/[^/]+\.parquet|\.lock)",
            rf"(curve/[^/]+/)?cache/((rows|distributions)-[^/]+/{_SEGMENT}|\.lock)",
            r"ledger/[^/]+\.jsonl",  # the ledger of a judge
        ),
    )


def student_files(folder: Path) -> dict[str, str]:
    """The sha256 of each file that is read when a student is loaded, by the file's path inside `folder`."""
    names = re.compile("|".join((*_MODEL, *(pattern for kind in KINDS.values() for pattern in kind.files))))
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if is_regular(path)}
    return {name: durable.sha256(path) for name, path in found.items() if names.fullmatch(name)}


def check_student(folder: Path, files: Mapping[str, str]) -> None:
    """Raise CorpusError when a file of the student in `folder` is not as training wrote it. `files` is the field of
    this name in training.json. If `files` is empty, as in a folder that an older version wrote, nothing is checked.
    """
    found = student_files(folder) if files else {}
    for name in sorted({*files, *found}):
        if found.get(name) != files.get(name):
            what = "is missing" if name not in found else "is not as training wrote it" if name in files else "is new"
            raise CorpusError(
                f"the student at {folder} has been changed: {name} {what}",
                f"make the student again: `distill train {folder.parent} --fresh`",
            )


def exported(to: str) -> Output:
    """The files that an export in the format `to` writes into its folder."""
    return Output("distill export", (("export.json", '"usage"'),), (*_EXPORT, *MODEL_FORMATS[to].files))
