"""Training on rows that synthgen did not make. These rows are written as a corpus in the student's folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.measuring import measured_here
from support.small import byte_tokenizer
from support.training import LOOSE, metrics_of
from support.unaudited import train

import distill
import synthgen
from distill import evaluate
from distill.adopted import adopt
from distill.data import Choice
from distill.streaming.conversations import reader_of
from distill.streaming.stream import open_stream
from synthgen import corpus
from synthgen.errors import CorpusError, GateDenied, RecipeError, RunChanged, UserError
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.recipe import load_recipe
from synthgen.records import to_table


@pytest.fixture(scope="module")
def made(small_run):
    """(recipe, curated run, teacher of the recipe)."""
    recipe, run = small_run(curate=LOOSE)
    return recipe, run, LanguageModel.open(recipe.teacher)


def dataset(folder: Path, rows, name: str = "rows.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tokens_alone(recipe, **changes):
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"kd_weight": 0.0, **changes})})


def test_any_rows_with_prompt_and_completion_train(made, tmp_path):
    recipe, _, teacher = made
    rows = [{"prompt": f"{i} and {chr(97 + i)}", "completion": f"so {i}"} for i in range(20)]
    rows += [{"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]}]
    folder = dataset(tmp_path / "rows", [*rows, rows[0]])
    trained = train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher)
    student = trained.folder
    adopted = student / "corpus"
    facts = corpus.verify(adopted)
    assert facts["counts"]["kept"] == 21
    assert facts["counts"]["copies_left_out"] == 1
    found = [r for _, records in corpus.records(adopted) for r in records]
    assert {r.text for r in found} == {f"so {i}" for i in range(20)} | {"y"}
    assert all(r.token_ids is None for r in found), "each student makes the tokens with its own tokenizer"
    assert {r.split for r in found} == {"train", "test"}
    assert trained.training.rows == sum(r.split == "train" for r in found)
    assert "rows (dataset, unknown)" in (student / "README.md").read_text()
    assert "cross-entropy on the completions' tokens" in (student / "README.md").read_text()
    assert [row["loss"] for row in metrics_of(student)]
    with measured_here():
        found = evaluate(tokens_alone(recipe), folder, student, teacher=teacher)
    assert "kl" not in found.measures, "the recipe's teacher did not write these rows"
    assert found.table["distilled"]["nll"].mean > 0
    before = (student / "model.safetensors").read_bytes()
    train(tokens_alone(recipe), folder, student, teacher=teacher, fresh=True)
    assert (student / "model.safetensors").read_bytes() == before


def test_a_run_of_tokens_alone_needs_no_logits(made, tmp_path):
    recipe, run, teacher = made
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "generated" / "logits")
    with pytest.raises(CorpusError, match="has no stored logits") as caught:
        train(recipe, copy, teacher=teacher)
    assert "train.kd_weight: 0" in caught.value.hint
    student = train(tokens_alone(recipe), copy, tmp_path / "student", teacher=teacher)
    kept = sum(len(r) for _, r in corpus.records(copy / "curated", "data", "train"))
    assert student.training.rows == kept
    assert not (student.folder / "baseline").exists(), "it would be the same student"


CALLS = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}


@pytest.mark.parametrize(
    ("row", "says", "kind"),
    [
        ({"question": "a", "answer": "b"}, "no prompt .*; the row has answer, question", RecipeError),
        ({"prompt": "a"}, "no completion", RecipeError),
        ({"prompt": "a", "completion": [{"role": "assistant"}]}, "has no content", RecipeError),
        ({"prompt": "a", "completion": [CALLS], "split": "train"}, "hides the calls of tools", CorpusError),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_learned_from(made, tmp_path, row, says, kind):
    recipe, _, teacher = made
    folder = dataset(tmp_path / "rows", [{"prompt": "p", "completion": "c"}, row])
    with pytest.raises(kind, match=says) as caught:
        train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher)
    assert re.search("line 2" if kind is RecipeError else "row |line 2", str(caught.value))
    assert caught.value.hint
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c"}) + "\n" + "{")
    with pytest.raises(RecipeError, match="line 2"):
        train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher, fresh=True)
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "p q", "completion": "c"}) + "\n")
    train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher, fresh=True)


def test_a_dataset_needs_a_place_for_its_student(made, tmp_path):
    recipe, _, teacher = made
    folder = dataset(tmp_path / "rows", [{"prompt": "p", "completion": "c"}])
    with pytest.raises(UserError, match="is a dataset, not a run") as caught:
        train(tokens_alone(recipe), folder, teacher=teacher)
    assert "-o" in caught.value.hint


def test_rows_without_tokens(made, tmp_path):
    """Removes the tokens from the rows, as in a run of an API teacher that sends no tokens."""
    _recipe, run, teacher = made
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    for path in (copy / "curated" / "data").glob("*.parquet"):
        records = corpus.from_rows(corpus.read_shard(path).to_pylist())
        schema = pq.read_schema(path)
        for record in records:
            object.__setattr__(record, "token_ids", None)
        pq.write_table(to_table(records).replace_schema_metadata(schema.metadata), path)
    cache, choice = tmp_path / "cache", Choice(256, labels_alone=True)
    stream = open_stream(copy / "curated", reader_of(teacher.tokens, ["teacher"]), cache, choice)
    stored = open_stream(run / "curated", reader_of(teacher.tokens, ["teacher"]), tmp_path / "other", choice)
    text = teacher.tokens.decode
    assert [(row.id, text(row.completion)) for row in stream] == [(row.id, text(row.completion)) for row in stored]
    assert all(row.completion[-1] == teacher.tokens.end for row in stream)


def test_a_run_that_holds_nothing_yet_is_no_dataset(made, tmp_path):
    recipe, _, teacher = made
    (tmp_path / "run").mkdir()
    for name in ("recipe.yaml", "log.jsonl"):
        (tmp_path / "run" / name).write_text("{}\n")
    (tmp_path / "empty").mkdir()
    for folder in ("run", "empty"):
        with pytest.raises(CorpusError, match="there is no corpus in"):
            train(recipe, tmp_path / folder, teacher=teacher)


def test_an_audit_that_says_no_holds_for_the_rows_of_its_run(made, tmp_path):
    """A command that is given only the folder of a run's rows still obeys the audit of the run."""
    recipe, run, teacher = made
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    denied = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"license": "CC-BY-NC-4.0"})})
    assert synthgen.audit(denied, copy).status == "DENY"
    with pytest.raises(GateDenied, match="is DENY"):
        distill.train(tokens_alone(recipe), copy / "curated" / "data", tmp_path / "student", teacher=teacher)
    student = train(tokens_alone(recipe), copy / "curated" / "data", tmp_path / "student", teacher=teacher)
    assert "training was forced with `--override-audit`" in (student.folder / "README.md").read_text()


def test_a_prompt_that_the_chat_template_cannot_show_names_the_row(tmp_path):
    tokenizer, recipe = byte_tokenizer(), load_recipe("reasoning")
    prompts = [[{"role": "user", "content": "How far?"}], [{"role": "system", "content": "Be kind."}]]
    prompts[1] += [{"role": "user", "content": "How\nnear?"}]
    rows = dataset(tmp_path / "rows", [{"prompt": prompt, "completion": "Not far."} for prompt in prompts])
    adopt(rows, recipe, tmp_path / "corpus")
    tokenizer.chat_template = "{% for m in messages %}{{ raise_exception('no system') if m.role == 'system' }}" + (
        "{{ m['role'] }}{{ m['content'] }};{% endfor %}"
    )
    reader = reader_of(Tokens.of(tokenizer, None), ())
    with pytest.raises(CorpusError, match=r"^row \w{32} \('How near\?'\): the chat template of .* no system"):
        open_stream(tmp_path / "corpus", reader, tmp_path / "cache", Choice(256, targets=False))


def test_rows_that_have_changed_are_read_again(made, tmp_path):
    """A student whose training has begun keeps its rows, so that a resumed training has the same data."""
    recipe, _, teacher = made
    few = tokens_alone(recipe, max_steps=1, baseline=False)
    rows = [{"prompt": f"{word}?", "completion": word, "split": "train"} for word in ("sea", "sky")]
    folder, student = dataset(tmp_path / "rows", rows[:1]), tmp_path / "student"
    adopt(folder, few, student / "corpus")
    dataset(folder, rows)
    assert train(few, folder, student, teacher=teacher).training.rows == 2, "nothing was trained before"
    dataset(folder, [*rows, {"prompt": "ice?", "completion": "ice", "split": "train"}])
    with pytest.raises(RunChanged, match="sha256"):
        train(few, folder, student, teacher=teacher)
    assert train(few, folder, student, teacher=teacher, fresh=True).training.rows == 3
