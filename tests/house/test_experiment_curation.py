"""The arms of the experiment `curation` choose the right rows, and its measures are computed from the model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support.corpora import row
from support.places import REPOSITORY

import synthgen
from synthgen import corpus, logits
from synthgen.logits import LogitsSpec, TopK
from synthgen.recipe.curate import rules
from synthgen.records import to_table

HERE = REPOSITORY / "benchmarks" / "experiments"


@pytest.fixture(scope="module")
def curation() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        import curation

        yield curation
    for name in ("curation", "harness", "sums", "tables"):
        sys.modules.pop(name, None)


def asked(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Solve the problem."}, {"role": "user", "content": question}]


def test_gold_answers_have_the_form_of_the_teachers_examples(curation):
    """One example has a result below zero, and one has a step that begins below zero."""
    examples = [json.loads(line) for line in (HERE / "sums" / "examples.jsonl").read_text().splitlines()]
    assert len(examples) == 4
    for one in examples:
        assert curation.worked(one["question"]) == f"{one['rationale']}\nAnswer: {one['answer']}"
    for text in ("14 * 6", "14 - six", "14 -", ""):
        with pytest.raises(ValueError):
            curation.worked(text)


def test_the_numbers_of_a_gold_answer_are_its_computed_numbers(curation):
    """14 and 31 are in the question. The student must compute 8 and 39, and then copies the 8."""
    for question, numbers in (("14 - 6 + 31", "8 39 39"), ("9 - 53 - 20", "-44 -64 -64"), ("8 + 0 + 2", "8 10 10")):
        text = curation.worked(question)
        ids = curation.tokens().answer(asked(question), [{"role": "assistant", "content": text}])
        found = [
            " " if not counts else curation.tokens().decode([i])
            for i, counts in zip(ids, curation.computed(text, ids), strict=True)
        ]
        assert "".join(found).split() == numbers.split()


def test_the_measures_are_those_of_the_model(curation, monkeypatch):
    import harness

    tokens, prompt = curation.tokens(), asked("14 - 6 + 31")
    model = harness.llama(len(tokens.tokenizer), 16, 1, 2, 0, eos=2, context=256).eval()
    monkeypatch.setattr(curation, "held_out", lambda: [(prompt, "39")] * 2)
    monkeypatch.setattr(curation, "NEW_TOKENS", 4)
    texts = []
    monkeypatch.setattr(curation, "score", lambda text, answer: texts.append(text) or float(answer == "39"))
    found = curation.measures(model)
    text = "14 - 6 = 8. 8 + 31 = 39.\nAnswer: 39"
    ids, before = tokens.answer(prompt, [{"role": "assistant", "content": text}]), tokens.render(prompt)
    with torch.no_grad():
        logq = model(torch.tensor([[*before, *ids]])).logits[0].log_softmax(-1)
    nats = [-float(logq[len(before) - 1 + n, token]) for n, token in enumerate(ids)]
    pieces = [tokens.decode([i]) for i in ids]
    digits = [n for n, piece in enumerate(pieces) if piece.isdigit()]
    computed = [digits[n] for n in (3, 7, 8, 9, 10)]  # the digits are 1 4 6 8 8 3 1 3 9 3 9
    assert found["right"] == [1.0] * 2
    assert found["gold"] == pytest.approx([sum(nats)] * 2, rel=1e-4)
    assert found["numbers"] == pytest.approx([sum(nats[n] for n in computed)] * 2, rel=1e-4)
    assert len(texts) == 2
    assert texts[0] == texts[1] != text


def raw_corpus(run: Path) -> None:
    """Four questions with four rows each: two equal right answers, a wrong answer, and a right answer in other words.
    A fifth question has a text that was cut off. Row n has one token, with the log-probability −(n + 1) / 10.
    """
    rows = []
    for n in range(4):
        for text, answer in (("It is 5.", "5"), ("It is 5.", "5"), ("It is 6.", "6"), ("I get 5.", "5")):
            given = {"answer": answer, "reference": ["5"], "prompt": asked(f"{n} + 1 + {4 - n}"), "token_ids": [1]}
            rows.append(row(f"{text}\nAnswer: {answer}", len(rows), **given))
    given = {"answer": None, "reference": ["5"], "prompt": asked("5 + 0 + 0"), "token_ids": [1]}
    rows.append(row("Let us see", 16, finish_reason="length", **given))
    meta = logits.meta(LogitsSpec("topk", k=1), 4, "t@1", "hash")
    logp = [np.array([[-(n + 1) / 10]]) for n in range(len(rows))]
    targets = [TopK(np.array([[1]], np.int32), p, np.log1p(-np.exp(p[0])), np.zeros(1, np.float32)) for p in logp]
    stored = logits.to_table(
        [one.id for one in rows], [logits.align([1], "t@1", "hash", 1.0)] * len(rows), targets, meta
    )
    folder = run / "generated"
    corpus.claim(folder, {"test": "corpus"}, "test")
    corpus.commit(folder, "train-00000", {"data": to_table(rows), "logits/t": stored})
    facts = {"description": "", "task": "t", "strategy": "answer", "prompt_version": "v", "labels": [], "teachers": {}}
    corpus.finish(folder, "generated", {**facts, "sources": [], "counts": {"rows": len(rows)}}, ["train-00000"])


@pytest.fixture(scope="module")
def raw(curation, tmp_path_factory) -> None:
    """The experiment with this corpus instead of a corpus that the teacher wrote."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("raw")
        raw_corpus(folder)
        patch.setattr(curation, "RUN", folder)
        patch.setattr(curation, "recipe", lambda keys: synthgen.load_recipe(HERE / "sums", keys))
        patch.setattr(curation, "score", lambda text, answer: float(text.endswith(f"Answer: {answer}")))
        yield


@pytest.mark.usefixtures("raw")
def test_each_arm_chooses_the_rows_that_it_names(curation):
    chosen = {arm: [one.id for one in curation.rows_of(arm, 0)] for arm in curation.KEEPS}
    numbers = np.arange(16).reshape(4, 4)
    assert {arm: len(ids) for arm, ids in chosen.items()} == {
        "raw": 17,
        "curated": 8,
        "deduplicated": 13,
        "verified": 12,
        "random": 8,
        "score": 8,
    }
    names = {
        arm: [f"r{n}" for n in numbers[:, columns].ravel()]
        for arm, columns in (("curated", [0, 3]), ("verified", [0, 1, 3]))
    }
    assert {arm: chosen[arm] for arm in names} == names
    assert chosen["score"] == [f"r{n}" for n in range(8)], "the rows with the highest score, copies and wrong ones too"
    facts = {arm: curation.facts_of(curation.rows_of(arm, 0)) for arm in ("raw", "curated", "score")}
    assert facts["raw"] == {"rows": 17, "questions": 5, "texts": 13, "right": 12 / 17, "cut": 1 / 17}
    assert facts["curated"] == {"rows": 8, "questions": 4, "texts": 8, "right": 1, "cut": 0}
    assert facts["score"] == {"rows": 8, "questions": 2, "texts": 6, "right": 0.75, "cut": 0}


@pytest.mark.usefixtures("raw")
def test_the_students_of_all_arms_are_trained_alike(curation):
    """The arms differ only in the rules of curation and in their rows. The number of steps is one epoch of the raw
    corpus.
    """
    made = {arm: curation.recipe_of(arm, 2) for arm in curation.KEEPS}
    assert len({one.model_copy(update={"curate": None}).model_dump_json() for one in made.values()}) == 1
    section = made["raw"].train
    assert section.max_steps * section.batch_size == curation.SEEDED * curation.SAMPLES
    assert (section.seed, section.kd_weight) == (2, 0)
    on = {arm: {name for name in rules() if one.curate.settings(name)} for arm, one in made.items()}
    assert on["raw"] == set()
    assert on["curated"] == {name for name, rule in rules().items() if rule.on} > {"answer", "duplicates", "truncated"}
    assert (on["deduplicated"], on["verified"], on["random"]) == ({"duplicates"}, {"answer"}, {"select"})
    for arm in ("random", "score"):
        assert (made[arm].curate.select.rows, made[arm].curate.select.seed) == (8, 2)


def test_the_detectable_difference_is_found_four_times_in_five(curation, monkeypatch):
    """With one seed and independent items of variance 1, the standard error is 1/√items. In 1,000 experiments with a
    true difference of the stated size, a test at the level of 5% finds the difference in about 800.
    """
    import tables

    monkeypatch.setattr(tables, "RESAMPLES", 400)
    draw, items = np.random.default_rng(0), 100
    gap = draw.normal(0, 1, items)
    base, arm = ({"arm": "a", "seed": 0, "items": {"loss": list(values)}} for values in (0 * gap, gap / gap.std()))
    *_, least = tables.paired([arm], [base], "loss")
    assert least == pytest.approx(2.8 / np.sqrt(items), rel=0.1)
    means = draw.normal(least, 1 / np.sqrt(items), 1000)
    found = np.mean(np.abs(means) > 1.96 / np.sqrt(items))
    assert found == pytest.approx(0.8, abs=0.06)
