"""Token ids and stored distributions of rows whose text an edit cut: exact, or absent."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.corpora import contents, parts
from support.small import small_task, small_teacher

import synthgen
from distill.data import Choice
from distill.streaming.conversations import reader_of
from distill.streaming.stream import open_stream
from synthgen import corpus, logits
from synthgen.curation import job
from synthgen.curation.confidence import SCORES, measured
from synthgen.curation.tokens import boundary, tokenizers
from synthgen.errors import CorpusError
from synthgen.recipe import Recipe
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI

TURN = "\nQ: And then?\nA: 12"
# The tokenizer has one token for "." together with a new line, so an answer that ends with "." cannot be cut between
# two tokens.
TEXTS = {
    "cut": "It is seven" + TURN,
    "joined": "It is seven." + TURN,
    "whole": "It is seven.",
    "accents": "C’est « été » 七" + TURN,
    "inside": "It is  \nseven, it seems",
    "end": "It is eight  ",
}
LOGITS = {"sampled": {"kind": "sampled", "draws": 9}, "topk": {"kind": "topk", "k": 7, "temperature": 2.0}}
LOST = ("joined", "inside")
LOOSE = {"answer": False, "truncated": False, "repetition": None, "length": None, "duplicates": False}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """`scored(kind)` returns (recipe, run): completions `TEXTS` with the distributions of a small teacher.
    `scored(kind, LOST)` leaves out the texts whose rows lose their token ids.
    """
    folder = tmp_path_factory.mktemp("tokens")
    teacher = small_teacher(folder / "teacher", merges=[(".", "Ċ")])
    made = {}

    def make(kind: str, without: Sequence[str] = ()):
        name = f"{kind}-{len(without)}"
        if name not in made:
            task = small_task(
                folder / name, teacher, strategy="score", generate={"shard_size": 4}, logits=LOGITS[kind], curate=LOOSE
            )
            rows = [
                {"id": f"{text}{n}", "question": f"{text} {n}?", "completion": TEXTS[text]}
                for n in range(2)
                for text in TEXTS
                if text not in without
            ]
            (folder / name / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            values = yaml.safe_load(task.read_text())
            values["seeds"][0].pop("reference", None)
            values.pop("split")
            task.write_text(yaml.safe_dump(values, sort_keys=False))
            recipe = synthgen.load_recipe(task)
            synthgen.generate(recipe, folder / f"run-{name}")
            made[name] = recipe, folder / f"run-{name}"
        return made[name]

    return make


def edited(recipe, **curate):
    section = type(recipe.curate).model_validate({**LOOSE, **curate})
    return recipe.model_copy(update={"curate": section})


def stored(folder):
    """Every row of distributions below a folder of a corpus: id → (arrays, alignment hash, metadata)."""
    found = {}
    for path in sorted((folder / "logits").glob("*/*.parquet")):
        shard = logits.read(path)
        found |= {name: (shard.target(n), shard.aligns[n], shard.meta) for n, name in enumerate(shard.ids)}
    return found


def same(one, other) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)]
    return type(one) is type(other) and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("kind", ["sampled", "topk"])
def test_cut_distributions_are_the_beginning_of_the_old_ones(scored, tmp_path, monkeypatch, kind):
    recipe, run = scored(kind)
    before = {r.seed_id: r for _, rows in corpus.records(run / "generated") for r in rows}
    recipe = edited(recipe, next_turn=True, white_space=True, confidence=True)
    folder = synthgen.curate(recipe, run, tmp_path / "curated", workers=1).folder
    kept, _ = parts(tmp_path)
    after = {r.seed_id: r for r in kept.values()}
    old, new = stored(run / "generated"), stored(folder)
    tokens = LocalModel.open(recipe.teacher, lazy=True).tokens
    for name, text in TEXTS.items():
        for seed in (f"{name}0", f"{name}1"):
            row, was = after[seed], before[seed]
            if name in LOST:
                assert (row.token_ids, row.id in new) == (None, False)
                assert row.edits
                assert not row.scores
                continue
            count = len(row.token_ids)
            assert row.token_ids == was.token_ids[:count]
            assert tokens.decode(row.token_ids) == row.text
            assert (row.text, count == len(was.token_ids)) == (text.removesuffix(TURN).rstrip(), name == "whole")
            target, align, meta = new[row.id]
            assert same(target, logits.cut(old[row.id][0], count))
            assert align == logits.align(row.token_ids, meta["teacher"], meta["tokenizer"], meta["temperature"])
            assert meta == old[row.id][2]
            values = measured(logits.cut(old[row.id][0], count), row.token_ids, meta["temperature"])
            own = {n: v for n, v in zip(SCORES.values(), values, strict=True) if not np.isnan(v)}
            assert {s["name"]: s["value"] for s in row.scores if s["name"] in own} == own
    corpus.verify(folder)
    monkeypatch.setattr(job, "TASK_ROWS", 4)
    two = synthgen.curate(recipe, run, tmp_path / "two", workers=1).folder
    assert contents(two).keys() == contents(folder).keys()
    assert {n: b for n, b in contents(two).items() if "data/" in n or "logits/" in n} == {
        n: b for n, b in contents(folder).items() if "data/" in n or "logits/" in n
    }


def test_a_trainer_reads_them(scored, tmp_path):
    """The end token is added with probability 1, because the teacher itself went on."""
    recipe, run = scored("sampled", LOST)
    generated = stored(run / "generated")
    synthgen.curate(edited(recipe, next_turn=True, white_space=True), run, tmp_path / "curated")
    tokens = LocalModel.open(recipe.teacher, lazy=True).tokens
    kept = {name: record for name, record in parts(tmp_path)[0].items() if record.split == "train"}
    name = next(iter(kept.values())).teacher
    stream = open_stream(tmp_path / "curated", reader_of(tokens, [name]), tmp_path / "cache", Choice(max_length=512))
    examples = {example.id: example for example in stream[:]}
    assert kept.keys() == examples.keys()
    for record in kept.values():
        example, count = examples[record.id], len(record.token_ids)
        end = [] if record.seed_id.startswith("whole") else [tokens.end]
        assert example.completion == [*record.token_ids, *end]
        assert len(example.target) == len(example.completion)
        assert same(logits.cut(example.target, count), logits.cut(generated[record.id][0], count))


def test_another_tokenizer_is_not_used(scored, tmp_path):
    recipe, run = scored("sampled")
    other = small_teacher(tmp_path / "other", merges=[("a", "b")])
    missing = tmp_path / "missing"
    for model, why in ((other, "the tokenizer of this teacher has changed"), (missing, "does not exist")):
        notes: list[str] = []
        ui = UI(quiet=True)
        ui.note = partial(lambda found, text: found.append(text), notes)  # type: ignore[method-assign]
        teacher = recipe.teacher.model_copy(update={"model": str(model)})
        changed = edited(recipe, next_turn=True).model_copy(update={"teacher": teacher})
        out = tmp_path / f"curated-{model.name}"
        synthgen.curate(changed, run, out, ui=ui)
        kept, _ = parts(tmp_path, out.name)
        assert {r.seed_id[:-1]: r.token_ids is None for r in kept.values()} == {
            name: TURN in text for name, text in TEXTS.items()
        }
        assert not (out / "logits").exists()
        assert any("lose their token ids" in note and why in note for note in notes), notes


def test_a_curated_corpus_passes_its_own_distributions_on(scored, tmp_path):
    recipe, run = scored("topk")
    first = synthgen.curate(edited(recipe, next_turn=True), run, tmp_path / "one" / "curated").folder
    again = synthgen.curate(edited(recipe), first, tmp_path / "two" / "curated").folder
    one, two = stored(first), stored(again)
    assert one.keys() == two.keys()
    assert all(same(one[name][0], two[name][0]) and one[name][1:] == two[name][1:] for name in one)


def test_distributions_are_deleted_with_their_corpus(scored, tmp_path):
    """Otherwise training would read the distributions of an earlier curation, and a removal would leave them."""
    recipe, made = scored("topk")
    run = Path(shutil.copytree(made, tmp_path / "run"))
    folder = synthgen.curate(edited(recipe, next_turn=True), run).folder
    assert stored(folder)
    synthgen.curate(edited(recipe), run, fresh=True)
    assert not stored(folder)
    synthgen.curate(edited(recipe, next_turn=True), run, fresh=True)
    gone = next(iter(corpus.records(run / "generated")))[1][0].seed_id
    synthgen.remove(run, gone)
    assert not stored(folder)


def test_distributions_of_other_tokens_are_not_cut(scored, tmp_path, monkeypatch):
    recipe, run = scored("topk")
    whole = logits.align
    monkeypatch.setattr(logits, "align", lambda ids, *more: whole([*ids, 1], *more))
    with pytest.raises(CorpusError, match="does not belong to record"):
        synthgen.curate(edited(recipe, next_turn=True), run, tmp_path / "curated", workers=1)


def test_a_server_has_the_tokenizer_that_the_recipe_names(scored):
    recipe, run = scored("topk")
    manifest = corpus.manifest(run / "generated")
    server = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", "license": "Apache-2.0"}
    for more, names in (({"tokenizer": recipe.teacher.model}, ["teacher"]), ({}, [])):
        asking = Recipe.model_validate({**recipe.model_dump(exclude={"teacher", "logits"}), "teacher": server | more})
        found = tokenizers(asking, manifest, UI(quiet=True))
        assert (list(found), [one.local for one in found.values()]) == (names, [False] * len(names))


def test_boundaries(scored):
    tokens = LocalModel.open(scored("topk")[0].teacher, lazy=True).tokens
    text = "é. 七\nx.\ny"
    ids = [*tokens.ids(text), tokens.end]
    ends = {n for n in range(1, len(text)) if boundary(tokens, ids, text, text[:n])}
    assert ends == set(range(1, len(text))) - {text.index(".\n") + 1}
    assert boundary(tokens, tokens.ids("é. other"), text, "é.") == 0, "the ids spell another text"
    assert boundary(tokens, ids, text, "é.") == len(tokens.ids("é."))
