"""The programs in docs/corpus-format.md run on small real runs, and the other pages match the code."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from support.places import REPOSITORY
from support.small import small_runs
from test_docs import blocks

from synthgen import logits
from synthgen.auditing.result import STATUSES
from synthgen.records import EDITS, FAILURE_SCHEMA, ROLES, SCHEMA, SPLITS, VERDICTS, Teaches
from synthgen.teachers.base import FAILURES

PAGE = REPOSITORY / "docs" / "corpus-format.md"
# Sampling is greedy, so the second sample of a seed is a copy of the first, and curation rejects it.
GREEDY = {"num_generations": 2, "temperature": 0, "max_new_tokens": 4, "shard_size": 6}
CURATE = {"answer": False, "truncated": False, "repetition": None, "length": None}
KINDS = {
    "draws": {"kind": "sampled", "draws": 12, "temperature": 2.0},
    "many-draws": {"kind": "sampled", "draws": 300},
    "top-k": {"kind": "topk", "k": 5, "temperature": 2.0},
    "whole-vocabulary": {"kind": "topk", "k": 258},
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    return small_runs(tmp_path_factory.mktemp("pages"))


def run_page(folder: Path, run: Path, monkeypatch: Any) -> dict[str, Any]:
    """Runs all programs of the page in one namespace, and returns the namespace. The programs read runs/first."""
    (folder / "runs").mkdir()
    (folder / "runs" / "first").symlink_to(run)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    names: dict[str, Any] = {}
    for number, program in enumerate(blocks(PAGE, "python")):
        exec(compile(program, f"{PAGE.name}, program {number + 1}", "exec"), names)
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_a_rows_distribution_is_read_as_the_page_says(make, tmp_path, monkeypatch, kind):
    _, run = make(kind, logits=KINDS[kind], generate=GREEDY, curate=CURATE)
    names = run_page(tmp_path, run, monkeypatch)
    assert len(names["frame"]) >= len(names["kept"]) > 0  # `frame`: rows of all splits, `kept`: rows of one split
    assert {reason["check"] for row in names["rejected"] for reason in row["verdicts"]} == {"duplicates"}

    # The whole distribution that the page computes agrees with the stored distribution.
    target, meta, p_TV = names["target"], names["meta"], names["p_TV"]
    np.testing.assert_allclose(p_TV.sum(1), 1)
    np.testing.assert_allclose(np.exp(names["logp_TV"].numpy()), p_TV, atol=1e-6)
    if meta["kind"] == "sampled":
        assert ((p_TV * meta["draws"]).round(6) % 1 == 0).all()
    else:
        kept = np.take_along_axis(p_TV, target.ids, 1)
        tempered = np.exp(target.logprobs / KINDS[kind].get("temperature", 1.0))
        np.testing.assert_allclose(kept / kept.sum(1)[:, None], tempered / tempered.sum(1)[:, None], rtol=1e-3)
        if meta["k"] < meta["vocab_size"]:
            np.testing.assert_allclose(1 - kept.sum(1), np.exp(target.log_tail), rtol=5e-3)

    # The page's program without synthgen reads the same values as synthgen.
    decoded = logits.read(names["path"]).target(0)
    np.testing.assert_array_equal(names["ids"], decoded.ids)
    if meta["kind"] == "sampled":
        np.testing.assert_array_equal(names["counts"], decoded.counts)
    else:
        np.testing.assert_allclose(names["logprobs"], decoded.logprobs)
        np.testing.assert_array_equal(names["log_z"], decoded.log_z)
        if meta["k"] < meta["vocab_size"]:
            np.testing.assert_allclose(names["log_tail"], decoded.log_tail)


def test_the_page_lists_every_column_in_order():
    page = PAGE.read_text(encoding="utf-8")
    section = page.split("## Columns of a row")[1].split("### Messages")[0]
    columns = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert columns == SCHEMA.names
    never_null = {line.split("`")[1] for line in section.splitlines() if "never null" in line and line.startswith("|")}
    assert never_null == {field.name for field in SCHEMA if not field.nullable}
    structs = [SCHEMA.field(name).type.value_type for name in ("prompt", "sources")] + [VERDICTS.value_type]
    for struct in structs:
        for field in struct:
            assert f"| `{field.name}` |" in page, field.name
    for name in [*(field.name for field in EDITS.value_type), *FAILURE_SCHEMA.names]:
        assert f"`{name}`" in page, name


def test_names_in_the_glossary_are_those_of_the_code():
    page = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:synthgen|distill)(?:\.\w+)+)`", page)
    assert len(names) > 5
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    for word in (*ROLES, *SPLITS, *STATUSES, *get_args(Teaches)):
        assert f"`{word}`" in page, word


def source_texts() -> list[str]:
    """Every string in the two packages. A value in an f-string is replaced by "…"."""
    texts = []
    for path in [*(REPOSITORY / "synthgen").rglob("*.py"), *(REPOSITORY / "distill").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def missing_messages(page: str, texts: list[str]) -> list[str]:
    """The messages in the first column of a page's tables that do not occur in any string of the packages."""
    tables = page.split("## Failures")[0] + page.split("## Audit")[1]
    messages = [m for line in tables.splitlines() if (m := re.match(r"\| `([^`]* [^`]*)`", line))]
    assert len(messages) > 40
    patterns = {m.group(1): re.compile(".*".join(map(re.escape, m.group(1).split("…")))) for m in messages}
    return [message for message, pattern in patterns.items() if not any(pattern.search(text) for text in texts)]


def test_every_message_in_the_troubleshooting_page_is_one_of_the_code():
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    texts = source_texts()
    assert missing_messages(page, texts) == []
    assert missing_messages(page.replace("`… is not finished", "`… is not quite finished"), texts)


def test_every_kind_of_failure_is_explained():
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    section = page.split("## Failures")[1].split("## Audit")[0]
    explained = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines() if "|" in line)))
    assert explained >= set(FAILURES)
    again = {kind for line in section.splitlines() if line.endswith("| yes |") for kind in re.findall(r"`(\w+)`", line)}
    assert again == set(FAILURES)
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "synthgen").rglob("*.py"))
    assert {kind for kind in re.findall(r'failure\([^)"]*"(\w+)"', sources)} <= explained
