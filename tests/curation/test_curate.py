"""Every check on planted cases; nothing lost; the same whatever the shards."""

from __future__ import annotations

import synthgen
from synthgen import corpus
from synthgen.curation import duplicates, text
from synthgen.recipe import CurateSection
from synthgen.records import Record


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


def keeps(check, record: Record, **thresholds) -> bool:
    (verdict,) = check([record], CurateSection(**thresholds))
    assert verdict.keep or verdict.reason
    return verdict.keep


def test_answer():
    assert keeps(text.answer, row("9", reference="9"))
    assert not keeps(text.answer, row("8", reference="9"))
    assert not keeps(
        text.answer,
        row(
            "",
            reference="9",
        ),
    )
    assert keeps(text.answer, row("anything"))


def test_length():
    assert not keeps(text.length, row("one two"), min_words=3)
    assert keeps(text.length, row("one two three"), min_words=3, max_words=3)
    assert not keeps(text.length, row("one two three four"), max_words=3)


def test_repetition():
    assert keeps(text.repetition, row("a b c d e f g h i j"))
    assert not keeps(text.repetition, row("I do not know it. " * 6))
    assert keeps(text.repetition, row("I do not know it. " * 6), repetition=1.0)
    assert keeps(text.repetition, row(""))


def test_refusal():
    assert not keeps(text.refusal, row("I'm sorry, but I can't do that."))
    assert not keeps(text.refusal, row("As an AI language model, I have no body."))
    assert keeps(text.refusal, row("She said sorry, and the cannon fired."))
    assert keeps(text.refusal, row("Nine. " * 60 + "I'm sorry, but I can't do that."))


def test_truncated():
    assert not keeps(text.truncated, row("x", finish_reason="length"))
    assert keeps(text.truncated, row("x", finish_reason="stop"))


def test_duplicates_keep_the_first():
    rows = [row("Nine apples.", 0), row("ten", 1), row("nine   APPLES.", 2), row("Nine apples.", 3)]
    found = duplicates.duplicates(rows)
    assert set(found) == {"r2", "r3"}
    assert all("r0" in v.reason for v in found.values())
    other = row("Nine apples.", 4)
    other.prompt = [{"role": "user", "content": "another question"}]
    assert "r4" not in duplicates.duplicates([*rows, other])


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
