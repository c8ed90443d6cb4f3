"""Each check finds planted cases, and curation loses no row. The results do not depend on the number of workers and the
shard size.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import synthgen
from synthgen import corpus
from synthgen.curation import repetition
from synthgen.curation.columns import Columns
from synthgen.curation.plain import plain
from synthgen.curation.repetition import repeated_shares
from synthgen.executor import Services
from synthgen.recipe import CurateSection
from synthgen.records import Record, to_table
from synthgen.tables.curation import CHECKS
from synthgen.tables.reference import resolve


def row(content: str, number: int = 0, **more) -> Record:
    values = {"reference": None, "answer": content, **more}
    return Record(
        id=f"r{number}",
        seed_id=f"s{number}",
        split="train",
        task="t",
        strategy="answer",
        prompt_version="v",
        prompt=[{"role": "user", "content": "question"}],
        completion=[{"role": "assistant", "content": content}],
        teacher="t",
        **values,
    )


def said(check: str, records: list[Record], **settings):
    """The verdicts of one check on records. `settings` are the keys of the check's section."""
    entry = CHECKS[check]
    section = CurateSection(**{check: settings or True}).settings(check)
    (batch,) = to_table(records).to_batches()
    return resolve(entry.run)(Columns(batch).select(entry.columns), section, Services())


def keeps(check: str, record: Record, **settings) -> bool:
    found = said(check, [record], **settings).rejected
    assert all(rejection.reason for rejection in found.values())
    return not found


def test_answer():
    assert keeps("answer", row("9", reference=["9"]))
    assert keeps("answer", row("9", reference=["8", "9"]))
    assert not keeps("answer", row("8", reference=["9"]))
    assert not keeps("answer", row("", reference=["9"]))
    assert keeps("answer", row("anything"))
    rows = [row("9", reference=["9"]), row("x"), row("8", reference=["9"]), row("", reference=["9"], answer=None)]
    verdicts = said("answer", rows)
    assert verdicts.scores["answer"].tolist()[::2] == [1.0, 0.0]
    assert np.isnan(verdicts.scores["answer"]).tolist() == [False, True, False, False]
    assert verdicts.rejected[2].reason == "answer '8' is not '9'"
    assert verdicts.rejected[3].reason == "no answer found in the completion"


def test_length():
    assert not keeps("length", row("one two"), min_words=3)
    assert keeps("length", row("one two three"), min_words=3, max_words=3)
    assert not keeps("length", row("one two three four"), max_words=3)
    assert not keeps("length", row(" \n "), min_words=1)
    verdicts = said("length", [row(" one\ttwo\n three"), row("")], min_words=None, max_words=2)
    assert verdicts.scores["length"].tolist() == [3.0, 0.0]
    rejection = verdicts.rejected[0]
    assert (rejection.rule, rejection.threshold, rejection.score) == ("max_words", 2, 3)
    assert CHECKS["length"].teaches == CHECKS["repetition"].teaches == "nothing"


def test_repetition():
    assert keeps("repetition", row("a b c d e f g h i j"))
    assert not keeps("repetition", row("I do not know it. " * 6))
    assert keeps("repetition", row("I do not know it. " * 6), max_share=1.0)
    assert keeps("repetition", row(""))


def share(text: str) -> float:
    words = text.lower().split()
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@pytest.mark.parametrize(("rows", "words", "kinds"), [(300, 40, 6), (300, 40, 3000), (600, 60, 20_000), (1, 9, 2)])
@pytest.mark.parametrize("wider", [0, 30])
def test_repetition_is_counted_exactly(rows, words, kinds, wider, monkeypatch):
    """The check gives each word and word pair a number, and packs the numbers into 64 bits. Rows whose numbers do not
    fit are counted one by one. `wider` adds bits to each number, so that many rows do not fit.
    """
    bits = repetition._bits
    monkeypatch.setattr(repetition, "_bits", lambda count: bits(count) + wider)
    draw = np.random.default_rng(words)
    texts = [" ".join(f"w{n}" for n in draw.integers(kinds, size=draw.integers(words))) for _ in range(rows)]
    texts += ["", "One", "A a A a a a a", "ÄPFEL äpfel Äpfel äpfel äpfel", "x\u2003x x\x1cx x x"]
    texts += [f"{t} {t}" for t in texts[:50]]
    assert repeated_shares(plain(pa.array(texts))).tolist() == [share(t) for t in texts]


def test_plain_texts_are_what_python_makes_of_them():
    texts = [f"{chr(c)}A {chr(c)}{chr(c)}b{chr(c)}\n" for c in range(0x20000) if not 0xD800 <= c < 0xE000]
    expected = [" ".join(text.lower().split()) for text in texts]
    assert plain(pa.array(texts)).to_pylist() == expected
    assert plain(pa.array([None, " A  b ", None, "ΑΣ"])).to_pylist() == [None, "a b", None, "ας"]


def test_truncated():
    assert not keeps("truncated", row("x", finish_reason="length"))
    assert keeps("truncated", row("x", finish_reason="stop"))
    assert keeps("truncated", row("x"))
    assert keeps("truncated", row("x", finish_reason="tool_calls"))
    for reason in ("content_filter", "refusal", "unknown"):
        assert not keeps("truncated", row("x", finish_reason=reason))


def test_nothing_is_lost_and_reasons_are_written(task, tmp_path):
    recipe = synthgen.load_recipe(task(curate={"answer": True, "truncated": True}))
    run = tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    made = {r.id: r for _, rows in corpus.records(run / "generated") for r in rows}
    kept = {r.id: r for _, rows in corpus.records(run / "curated") for r in rows}
    rejected = {r.id: r for _, rows in corpus.records(run / "curated", "rejected") for r in rows}
    assert not set(kept) & set(rejected)
    assert set(kept) | set(rejected) == set(made)
    assert rejected, "random weights do not add"
    assert all(r.verdicts and all(v["reason"] for v in r.verdicts) for r in rejected.values())
    assert not any(r.verdicts for r in kept.values())
    for found in (*kept.values(), *rejected.values()):
        original = made[found.id]
        assert (found.prompt, found.completion, list(found.token_ids)) == (
            original.prompt,
            original.completion,
            list(original.token_ids),
        )


def test_datasets_and_pandas_load_what_curation_wrote(task, tmp_path):
    import pandas
    from datasets import load_dataset

    recipe = synthgen.load_recipe(task(curate={"answer": False, "truncated": True, "repetition": None}))
    run = tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    counts = corpus.manifest(run / "curated")["counts"]
    assert counts.get("rejected"), "the tiny model runs to the limit"
    rejected = load_dataset(str(run / "curated"), "rejected", cache_dir=str(tmp_path / "cache"))
    assert sum(len(split) for split in rejected.values()) == counts["rejected"]
    made = load_dataset(str(run / "generated"), cache_dir=str(tmp_path / "cache"))
    assert sum(len(split) for split in made.values()) == counts["rejected"] + counts.get("kept", 0)
    assert set(made) == {"train", "test"}
    assert made["train"][0]["prompt"][0]["role"] == "user"
    frame = pandas.read_parquet(next((run / "generated" / "data").glob("*.parquet")))
    assert {"id", "prompt", "completion", "token_ids"} <= set(frame.columns)
