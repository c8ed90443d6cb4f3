"""DATASET_FORMATS: the formats of data sets that synthgen did not make. ROW_FORMATS: the formats in which `synthgen
export` writes rows. DESCRIPTIONS: the formats in which `synthgen export` describes a run for other tools.
MODEL_FORMATS: the formats in which `distill export` writes students. An entry holds all facts about a format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthgen.tables.reference import Reference


@dataclass(frozen=True)
class DatasetFormat:
    """One format of rows in a data set. A row maps columns to JSON values.

    `about` describes the format in one line. `recognize(row)` gets the first row of a data set and returns whether the
    row has this format. `read(row)` returns a list of `synthgen.datasets.Turns`, one for each record that is made from
    the row. `read` raises ValueError, which says what is missing, for a row that it cannot read. `columns` are the
    columns that `read` uses. All other columns are kept as the user's own columns.
    """

    about: str
    recognize: Reference
    read: Reference
    columns: tuple[str, ...]


DATASET_FORMATS: dict[str, DatasetFormat] = {
    "preference": DatasetFormat(
        about="`chosen` and `rejected`, maybe `prompt`.",
        recognize="synthgen.datasets.formats:has_pair",
        read="synthgen.datasets.formats:pair",
        columns=("prompt", "chosen", "rejected", "tools", "teaches"),
    ),
    "unpaired-preference": DatasetFormat(
        about="`prompt`, `completion` and a `label` of true or false.",
        recognize="synthgen.datasets.formats:has_judged_completion",
        read="synthgen.datasets.formats:judged_completion",
        columns=("prompt", "completion", "label", "tools", "teaches"),
    ),
    "prompt-completion": DatasetFormat(
        about="`prompt` and `completion`, as text or messages.",
        recognize="synthgen.datasets.formats:has_prompt_and_completion",
        read="synthgen.datasets.formats:prompt_and_completion",
        columns=("prompt", "completion", "tools", "teaches"),
    ),
    "messages": DatasetFormat(
        about="`messages` with `role` and `content`.",
        recognize="synthgen.datasets.formats:has_messages",
        read="synthgen.datasets.formats:messages",
        columns=("messages", "system", "tools", "functions", "teaches"),
    ),
    "sharegpt": DatasetFormat(
        about="`conversations` with `from` and `value`.",
        recognize="synthgen.datasets.formats:has_conversations",
        read="synthgen.datasets.formats:sharegpt",
        columns=("conversations", "system", "tools", "teaches"),
    ),
    "alpaca": DatasetFormat(
        about="`instruction` and `output`, maybe `input`.",
        recognize="synthgen.datasets.formats:has_instruction",
        read="synthgen.datasets.formats:alpaca",
        columns=("instruction", "input", "output", "system", "history", "tools", "teaches"),
    ),
    "text": DatasetFormat(
        about="`text`: plain text.",
        recognize="synthgen.datasets.formats:has_text",
        read="synthgen.datasets.formats:text",
        columns=("text",),
    ),
}
"""Formats are tried in this order. The first format that recognizes the first row is used."""


@dataclass(frozen=True)
class RowFormat:
    """One format in which `synthgen export` writes the rows of a corpus or a data set.

    `about` describes the format in one line, and `cannot_hold` names the data for which the format has no place.
    `write(records)` returns the format's own columns of one row, as JSON values. `write` gets a list of one record or,
    if `paired`, a list of the two sides of a pair. `write` raises ValueError, which says what the format cannot hold.
    `reads` is the entry of DATASET_FORMATS that reads the rows again. The export refuses a row that would change when
    it is written and read again. `rejected` says whether readers of the format know which completions were rejected.

    If `like` is given, the files are Parquet and have the columns of another format: `like(record)` gets the first
    record and returns the name of this format.
    """

    about: str
    cannot_hold: str
    write: Reference | None = None
    reads: str = ""
    paired: bool = False
    rejected: bool = False
    like: Reference | None = None


_HOW_MADE = "columns that say how a run made the row"
ROW_FORMATS: dict[str, RowFormat] = {
    "messages": RowFormat(
        about="JSONL with `messages`, the form of OpenAI, TRL and chat templates.",
        cannot_hold=f"a completion that continues the assistant's own beginning, plain text, pairs, {_HOW_MADE}",
        write="synthgen.exporting.writers:messages",
        reads="messages",
    ),
    "sharegpt": RowFormat(
        about="JSONL with `conversations` of `from` and `value`, as LLaMA-Factory reads them.",
        cannot_hold="reasoning, names and ids of tools, a tool call with other text in the same message, the role "
        "developer, and what `messages` cannot hold",
        write="synthgen.exporting.writers:sharegpt",
        reads="sharegpt",
    ),
    "alpaca": RowFormat(
        about="JSONL with `instruction`, `input` and `output`, and where needed `system` and `history`.",
        cannot_hold="tools, reasoning, turns that are not question and answer, and what `messages` cannot hold",
        write="synthgen.exporting.writers:alpaca",
        reads="alpaca",
    ),
    "prompt-completion": RowFormat(
        about="JSONL with `prompt` and `completion` as messages, the form of TRL.",
        cannot_hold=f"plain text, pairs, {_HOW_MADE}",
        write="synthgen.exporting.writers:prompt_and_completion",
        reads="prompt-completion",
    ),
    "text": RowFormat(
        about="JSONL with `text`.",
        cannot_hold=f"conversations, {_HOW_MADE}",
        write="synthgen.exporting.writers:text",
        reads="text",
    ),
    "preference": RowFormat(
        about="JSONL with `prompt`, `chosen` and `rejected` as messages, the form of TRL.",
        cannot_hold=f"rows that are not in a pair, {_HOW_MADE}",
        write="synthgen.exporting.writers:pair",
        reads="preference",
        paired=True,
        rejected=True,
    ),
    "unpaired-preference": RowFormat(
        about="JSONL with `prompt`, `completion` and a `label` of true or false, the form of TRL.",
        cannot_hold=f"rows that are neither chosen nor rejected, plain text, {_HOW_MADE}",
        write="synthgen.exporting.writers:judged_completion",
        reads="unpaired-preference",
        rejected=True,
    ),
    "hub": RowFormat(
        about="A dataset repository of the Hugging Face hub: Parquet files and a card. The columns are those of "
        "`prompt-completion`, `preference` or `text`, and those that say how a run made the row.",
        cannot_hold="rows of several of these three kinds together",
        like="synthgen.exporting.writers:like",
    ),
}


@dataclass(frozen=True)
class Description:
    """One format in which `synthgen export` describes a run for other tools: a JSON document with the facts in the
    manifest and in the audit.

    `about` describes the format in one line, and `file` is the name of the document. `rows` names the entry of
    ROW_FORMATS in which the rows are written next to the document. When `rows` is empty, no rows are written, and the
    document also describes the run's student. `describe` returns the content of the document. If rows are written, the
    call is `describe(folder, about)`, where `about` is a `synthgen.exporting.card.About` and `folder` has the files and
    the card of the export. If no rows are written, the call is `describe(subject)` with a
    `synthgen.exporting.description.Subject`. A document without rows contains the text `sign`. Without `--fresh`, no
    document is replaced. With `--fresh`, only a file that contains `sign` is replaced, because any other file is the
    user's.
    """

    about: str
    file: str
    describe: Reference
    rows: str = ""
    sign: str = ""


DESCRIPTIONS: dict[str, Description] = {
    "croissant": Description(
        about="The files of `hub`, described as Croissant 1.0 with its fields for responsible AI (RAI).",
        file="croissant.json",
        describe="synthgen.exporting.croissant:describe",
        rows="hub",
    ),
    "spdx": Description(
        about="SPDX 3.0.1: the corpus, its sources, and the student that was trained on it, with their licenses.",
        file="spdx.json",
        describe="synthgen.exporting.spdx:describe",
        sign='"name": "synthgen"',
    ),
}


@dataclass(frozen=True)
class ModelFormat:
    """One format of models.

    `title` is the name that messages and cards use. `library_name` is the value of the key `library_name` in the header
    of the model card. `writes` maps the name of a kind of student in KINDS to the function that writes a student of
    this kind. The function takes a `distill.exporting.job.Job` and returns an `Export`, which holds the comparison with
    the student, the measures, and how to run the files. `packages` must be installed; `extra` installs them. `files`
    are regular expressions for the names of the files that are written; `--fresh` deletes no other files.
    `copies_config` says whether configuration, tokenizer and chat template are written into the folder as separate
    files.
    """

    title: str
    library_name: str
    writes: Mapping[str, Reference]
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: str = "export"
    copies_config: bool = False


MODEL_FORMATS: dict[str, ModelFormat] = {
    "onnx": ModelFormat(
        title="ONNX",
        library_name="onnx",
        writes={
            "decoder": "distill.exporting.decoder:write_onnx",
            "encoder": "distill.exporting.encoder:write_onnx",
            "classifier": "distill.exporting.classifier:write_onnx",
        },
        files=(r"model(_int8)?\.onnx(\.data)?", r"predict\.(py|json)"),
        packages=("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
        copies_config=True,
    ),
    "gguf": ModelFormat(
        title="GGUF",
        library_name="gguf",
        writes={
            "decoder": "distill.exporting.decoder:write_gguf",
            "encoder": "distill.exporting.encoder:write_gguf",
        },
        files=(r"model-(f16|q8_0)\.gguf",),
        packages=("gguf",),
    ),
}
