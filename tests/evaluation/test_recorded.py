"""Students that are measured on recorded answers, because no live teacher can be compared with them."""

from __future__ import annotations

import html
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from support import unaudited
from support.corpora import list_again
from support.measuring import measured_here
from support.small import small_task, small_teacher
from support.statements import check_card
from support.training import LOOSE

import distill
import synthgen
from distill.evaluation import recorded
from distill.evaluation.grouped import Scale
from distill.evaluation.recorded import TEACHER, recorded_answer, spent
from distill.evaluation.subject import Subject
from distill.evaluation.texts import has_live_teacher
from distill.held_out import HeldOut, groups
from synthgen import corpus
from synthgen.errors import CorpusError, UserError
from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe, load_recipe
from synthgen.records import Message
from synthgen.results.measures import Interval, Table
from synthgen.results.training import read_training
from synthgen.ui import UI

SAME = 1e-30  # a learning rate at which no float32 weight changes
ROWS = 32


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return small_teacher(tmp_path_factory.mktemp("model") / "teacher")


def recipe_of(folder: Path, teacher: Path, **train: object) -> Recipe:
    section = {
        "student": {"kind": "decoder", "model": str(teacher)},
        "kd_weight": 0,
        "num_train_epochs": 40,
        "learning_rate": 5e-3,
        "batch_size": 8,
        **train,
    }
    evaluate = {"max_new_tokens": 12, "max_prompts": 6}
    return load_recipe(small_task(folder, teacher, split={"test": 0.4}, train=section, evaluate=evaluate))


def dataset(folder: Path, rows: Sequence[dict[str, object]]) -> Path:
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def songs(count: int = ROWS) -> list[dict[str, object]]:
    """Rows with the same completion, so that a student that was trained on some rows knows all rows."""
    return [{"prompt": f"{word(i)} verse", "completion": "la li lu"} for i in range(count)]


def word(i: int) -> str:
    """A word for each number. Numbers are not used, because questions that differ only in digits are in one group, and
    so in one split.
    """
    return chr(97 + i % 26) * (1 + i // 26)


@pytest.fixture(scope="module")
def sung(teacher, tmp_path_factory):
    """(recipe, dataset, student's folder, evaluation)"""
    folder = tmp_path_factory.mktemp("sung")
    recipe = recipe_of(folder / "task", teacher)
    rows = dataset(folder / "rows", songs())
    student = unaudited.train(recipe, rows, folder / "student").folder
    with measured_here():
        return recipe, rows, student, distill.evaluate(recipe, student)


def difference(found: distill.evaluation.evaluate.Evaluation, measure: str, other: str = "untrained") -> Interval:
    [one] = [c for c in found.comparisons if (c.name, c.measure) == (f"distilled − {other}", measure)]
    return one.difference


def test_a_student_of_the_held_out_text_finds_it_likelier(sung):
    *_, found = sung
    for measure in ("nll", "bits_per_byte"):
        apart = difference(found, measure)
        assert apart.low <= apart.mean <= apart.high < -0.5
    table = found.table
    assert apart.mean == pytest.approx(
        table["distilled"]["bits_per_byte"].mean - table["untrained"]["bits_per_byte"].mean
    )
    assert table["distilled"]["perplexity"] == pytest.approx(math.exp(table["distilled"]["nll"].mean))
    assert "a teacher that is not stated" in found.headline
    assert f"[{difference(found, 'nll').low:.3f}," in found.headline
    assert "No teacher was asked" in found.notes[0]
    assert not {"kl", "agreement"} & set(found.measures)
    assert list(found.table) == ["untrained", "distilled"], "the rows record nothing of the teacher but its words"
    assert found.samples[0].texts[TEACHER] == "la li lu"
    assert found.samples[0].texts["distilled"] == "la li lu"
    assert difference(found, "same_answer").low > 0
    assert "accuracy" not in table["distilled"] or table["distilled"]["accuracy"] is None, "there are no references"
    assert table["distilled"]["parameters"] == table["distilled"]["weights_bytes"] / 4
    assert table["distilled"]["answer_ms"].p50 > 0


def test_the_loss_statement_of_recorded_answers(sung):
    *_, student, found = sung
    entries = {one["measure"]: one for one in check_card(student)}
    nll = entries["−log q of held-out answers, nats a token"]
    assert (nll["base"]["mean"], nll["student"]["mean"]) == tuple(
        found.table[name]["nll"].mean for name in ("untrained", "distilled")
    )
    assert nll["minus_base"]["mean"] == difference(found, "nll").mean
    assert nll["missing"] == {"teacher": "the teacher was not asked, and the rows hold only its words"}
    assert entries["calibration error"]["student"]["mean"] < 0.1 < entries["calibration error"]["base"]["mean"]
    assert entries["answers that refuse"]["teacher"]["mean"] == 0.0
    assert entries["words of an answer"]["teacher"]["mean"] == entries["words of an answer"]["student"]["mean"] == 3.0
    assert "no held-out row has a reference answer" in (student / "README.md").read_text()


def test_recorded_answers_are_as_long_as_the_student_may_write(sung, tmp_path):
    """The student writes the recorded answers, and is stopped after three tokens."""
    recipe, _, student, _ = sung
    short = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"max_new_tokens": 3})})
    with measured_here():
        found = distill.evaluate(short, shutil.copytree(student, tmp_path / "student"))
    length = next(one for one in found.statement.entries if one.dimension == "length")
    assert length.teacher.mean == length.student.mean < 3
    assert "All answers were cut off at 3 tokens" in length.note
    right = next(one for one in found.statement.entries if one.dimension == "accuracy")
    assert "end at 3 tokens" in right.note


def test_the_likelihood_is_that_of_the_saved_model(sung):
    """The sum over the held-out rows is compared with a computation by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    *_, student, found = sung
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    nats = tokens = size = 0.0
    for _, records in corpus.records(student / "corpus", "data", "test"):
        for record in records:
            prompt = tokenizer.apply_chat_template(
                record.prompt, tokenize=True, add_generation_prompt=True, return_dict=False
            )
            answer = [*tokenizer.encode(record.text, add_special_tokens=False), tokenizer.eos_token_id]
            with torch.no_grad():
                logp = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
            nats -= sum(float(logp[len(prompt) + n - 1, token]) for n, token in enumerate(answer))
            tokens, size = tokens + len(answer), size + len(record.text.encode())
    assert found.counts["tokens"] == tokens
    assert found.table["distilled"]["nll"].mean == pytest.approx(nats / tokens, rel=1e-4)
    assert found.table["distilled"]["bits_per_byte"].mean == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_a_student_that_did_not_change_differs_by_exactly_zero(teacher, tmp_path):
    recipe = recipe_of(tmp_path / "task", teacher, learning_rate=SAME, num_train_epochs=1)
    student = unaudited.train(recipe, dataset(tmp_path / "rows", songs()), tmp_path / "student").folder
    with measured_here():
        found = distill.evaluate(recipe, student)
    for measure in ("nll", "bits_per_byte"):
        assert difference(found, measure) == Interval(0.0, 0.0, 0.0)
    same = difference(found, "same_answer")
    most = 1 - 0.025 ** (1 / found.counts["prompts_answered"])
    assert same.mean == 0.0, "each prompt has a group of its own"
    assert (same.low, same.high) == pytest.approx((-most, most)), "six prompts without a difference prove little"
    assert "the interval includes zero" in found.headline


def test_a_students_folder_is_enough(sung, tmp_path):
    """The command needs the folder, and a recipe beside it or in it."""
    from click.testing import CliRunner

    from distill.cli import main

    recipe, _, student, found = sung
    own = Path(shutil.copytree(student, tmp_path / "mine"))
    (own / "evaluation.json").unlink()
    (own / "recipe.yaml").write_text(synthgen.recipe.dump_recipe(recipe))
    with measured_here():
        done = CliRunner().invoke(main, ["eval", str(own), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["table"]["distilled"]["nll"] == found.to_dict()["table"]["distilled"]["nll"]
    assert (own / "evaluation.json").exists()
    shutil.rmtree(own / "corpus")
    with pytest.raises(UserError, match="are not beside it") as caught:
        distill.evaluate(recipe, own)
    assert f"--student {own}" in caught.value.hint


def test_a_student_in_its_run_is_enough(small_run, tmp_path):
    recipe, run = small_run(curate=LOOSE)
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    unaudited.train(recipe, copy)
    with measured_here():
        found = distill.evaluate(recipe, copy / "student")
    assert found.table["distilled"]["kl"].mean > 0
    assert distill.evaluate(recipe, copy) == found, "it is the same student and is not measured again"


def test_a_student_is_measured_with_its_own_settings(sung):
    """The recipe on the command line may describe another student. The untrained student is still the model from which
    the training started.
    """
    recipe, _, student, found = sung
    other = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"student": {"kind": "decoder", "layers": (0,)}, "seed": 9})}
    )
    other = Recipe.model_validate(other.model_dump())
    with measured_here():
        again = distill.evaluate(other, student, fresh=True)
    assert again.table["untrained"]["nll"] == found.table["untrained"]["nll"]
    training = read_training(student / "training.json")
    broken = {**training.to_dict(), "train": {**training.train, "no_such_key": 1}}
    before = (student / "training.json").read_text()
    (student / "training.json").write_text(json.dumps(broken))
    try:
        with pytest.raises(CorpusError, match=r"train\.no_such_key"):
            distill.evaluate(recipe, student, fresh=True)
    finally:
        (student / "training.json").write_text(before)


def test_rows_that_do_not_fit_are_left_out_and_counted(teacher, tmp_path):
    """The small model has 256 positions, and its tokens are bytes."""
    long = [{"prompt": f"long {word(i)} {'x' * 300}", "completion": "la li lu"} for i in range(ROWS)]
    recipe = recipe_of(tmp_path / "task", teacher, num_train_epochs=1)
    student = unaudited.train(recipe, dataset(tmp_path / "rows", [*songs(), *long]), tmp_path / "student").folder
    held = [r for _, some in corpus.records(student / "corpus", "data", "test") for r in some]
    short = [r for r in held if not str(r.prompt[-1]["content"]).startswith("long")]
    assert 0 < len(short) < len(held)
    with measured_here():
        found = distill.evaluate(recipe, student)
    assert found.rows == len(short)
    assert any(f"{len(held) - len(short)} rows were left out" in note for note in found.notes)


# The choice between the two evaluations


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory):
    """(recipe, a run of its own with a student)"""
    recipe, made = small_run(curate=LOOSE)
    copy = Path(shutil.copytree(made, tmp_path_factory.mktemp("own") / "run"))
    unaudited.train(recipe, copy)
    return recipe, copy


def subject(recipe: Recipe, run: Path) -> Subject:
    student = run / "student"
    training = read_training(student / "training.json")
    return Subject(recipe, training, run / "curated", student, None, UI(quiet=True))


def test_the_teacher_that_made_the_rows_is_live(run):
    assert has_live_teacher(subject(*run))


def test_another_teacher_with_the_same_tokens_is_a_stranger(run, tmp_path):
    recipe, folder = run
    stranger = small_teacher(tmp_path / "stranger", seed=5)
    other = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"model": str(stranger)})})
    assert not has_live_teacher(subject(other, folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [("revision", "sha256:0"), ("tokenizer", "another"), (None, None)],
    ids=["other weights", "other tokens", "no teacher stated"],
)  # fmt: skip
def test_rows_of_another_teacher_are_recorded(run, tmp_path, key, value):
    recipe, folder = run
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    facts = corpus.manifest(copy / "curated")
    teachers = {name: {**facts["teachers"][name], key: value} for name in facts["teachers"]} if key else {}
    (copy / "curated" / "manifest.json").write_text(json.dumps({**facts, "teachers": teachers}))
    assert not has_live_teacher(subject(recipe, copy))


def test_a_student_with_other_tokens_has_no_live_teacher(run, tmp_path, monkeypatch):
    from distill.job import Job

    recipe, folder = run
    other = LanguageModel.open(
        recipe.teacher.model_copy(update={"model": str(small_teacher(tmp_path / "s", merges=[("a", "b")]))})
    )
    monkeypatch.setattr(Job, "tokens", property(lambda job: other.tokens))
    assert not has_live_teacher(subject(recipe, folder))


def test_a_server_is_not_live_whatever_its_rows_are(run):
    recipe, folder = run
    server = {"engine": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1", "api_key_env": None}
    values = recipe.model_dump(mode="json") | {"teacher": server, "logits": None}
    assert not has_live_teacher(subject(Recipe.model_validate(values), folder))


def test_rows_without_the_teachers_tokens_are_recorded(run, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    recipe, folder = run
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    path = next((copy / "curated" / "data").glob("test-*.parquet"))
    table = pq.read_table(path)
    place = table.schema.get_field_index("token_ids")
    empty = pa.nulls(table.num_rows, table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), empty), path)
    list_again(copy / "curated")
    assert not has_live_teacher(subject(recipe, copy))


# Groups and intervals


def held(n: int, **more: object) -> HeldOut:
    """A held-out row."""
    values: dict[str, object] = {
        "id": f"r{n}",
        "seed_id": f"s{n}",
        "split": "test",
        "strategy": None,
        "prompt": [Message(role="user", content=f"q{n}")],
        "teacher_prompt": None,
        "prompt_token_ids": None,
        "token_ids": None,
        "label_probs": None,
        "reference": None,
        "scores": [],
        **more,
    }
    return HeldOut(**values)  # type: ignore[arg-type]


def test_rows_are_grouped_by_seed_and_by_group():
    rows = [
        held(0),
        held(1, group_id="g"),
        held(2, group_id="g"),
        held(3, seed_id="s2"),
        held(4, group_id="h"),
        held(5, seed_id="g"),  # the name of a seed is not the name of a group
    ]
    names = groups(rows)
    assert names[1] == names[2] == names[3]
    assert len({names[0], names[1], names[4], names[5]}) == 4
    joined = groups([*rows, held(6, seed_id="s0", group_id="h")])
    assert joined[0] == joined[4] == joined[6]


def test_an_interval_of_groups_is_wider_when_the_rows_of_a_group_are_copies():
    values = np.random.default_rng(3).normal(size=20)
    copies = np.repeat(values, 9)
    rows = [held(n, seed_id=f"s{n // 9}") for n in range(len(copies))]
    by_group = Scale(groups(rows), 0).of(copies)
    by_row = Scale([row.id for row in rows], 0).of(copies)
    assert isinstance(by_group, Interval)
    assert isinstance(by_row, Interval)
    assert by_group.mean == by_row.mean == pytest.approx(values.mean())
    wide, narrow = (one.high - one.low for one in (by_group, by_row))
    assert wide == pytest.approx(3 * narrow, rel=0.25), "nine copies are one observation, so it is √9 times as wide"


def test_one_group_has_no_interval():
    assert Scale(["g", "g"], 0).of(np.array([1.0, 3.0])) == 2.0
    assert Scale(["g", "h"], 0).of(np.array([1.0, 3.0]), places=[1]) == 3.0
    assert Scale(["g", "h"], 0).of(np.array([1.0, 3.0]), places=[]) is None
    assert Scale(["g", "h"], 0).of(np.array([1.0, 3.0]), np.array([0.0, 2.0])) is None, "no mean without a weight"


# Answers


def told(text: str, **more: object) -> HeldOut:
    return held(0, completion=[Message(role="assistant", content=text)], **more)


@pytest.mark.parametrize(
    ("row", "marker", "answer"),
    [
        (told("So. Answer: 4"), "Answer:", "4"),
        (told("So. Answer: 4", answer="four"), "Answer:", "four"),
        (told("no marker here"), "Answer:", None),
        (told("no marker here", reference=["4"]), "Answer:", None),
        (told("42"), None, "42"),
        (told("word " * 30, answer="word " * 30), None, None),
        (told("word " * 30 + "7", answer="word " * 30 + "7", reference=["7"]), None, "word " * 30 + "7"),
        (told("word " * 30, answer="7"), None, "7"),
        (held(0), None, None),
    ],
)
def test_the_teachers_answer_is_read_only_where_there_is_one(row, marker, answer):
    assert recorded_answer(row, marker) == answer


def points(rows: list[HeldOut], texts: dict[str, list[str]], marker: str | None = None) -> dict[str, dict[str, list]]:
    recipe = SimpleNamespace(train=None, generate=SimpleNamespace(answer_marker=marker))
    found = recorded.points_of(recipe, recorded.Answers(rows, texts, {}))
    return {name: {key: values.tolist() for key, values in row.items()} for name, row in found.items()}


def test_answers_are_compared_with_references_and_with_the_teacher():
    rows = [told("4", reference=["4"]), told("5", reference=["6"]), told("Paris")]
    found = points(rows, {"distilled": ["four", "5.0", "paris."]})
    assert found["distilled"]["same_answer"] == [1.0, 1.0, 1.0]
    assert found["distilled"]["accuracy"][:2] == [1.0, 0.0]
    assert found[TEACHER]["accuracy"][:2] == [1.0, 0.0], "the teacher's own answer to the second is wrong"
    assert math.isnan(found["distilled"]["accuracy"][2])
    assert math.isnan(found[TEACHER]["accuracy"][2])
    assert "same_answer" not in found[TEACHER]


def test_teacher_and_student_need_the_marker_alike():
    rows = [told("It is 4", reference=["4"])]
    found = points(rows, {"distilled": ["It is 4"]}, "Answer:")
    assert found["distilled"]["accuracy"] == found[TEACHER]["accuracy"] == [0.0]
    assert math.isnan(found["distilled"]["same_answer"][0])
    assert points(rows, {"distilled": ["so Answer: 4"]}, "Answer:")["distilled"]["accuracy"] == [1.0]


def test_recorded_costs_are_given_only_when_every_row_has_them():
    row = replace(told("x"), usage={"completion_tokens": 10}, cost_usd=0.002)
    other = replace(told("y"), usage={"completion_tokens": 30}, cost_usd=0.004)
    assert spent([row, other]) == {"answer_tokens": 20.0, "answer_usd": pytest.approx(0.003)}
    assert spent([row, replace(other, cost_usd=None)]) == {"answer_tokens": 20.0}
    assert spent([row, told("z")]) == {}
    free = replace(row, cost_usd=0.0)
    assert "answer_usd" not in spent([free, free]), "a model on one's own machine has no price"


def test_the_headline_says_what_the_intervals_say():
    table: Table = {
        "untrained": {"nll": 2.0, "accuracy": 0.1},
        "distilled": {"nll": 1.5, "accuracy": 0.3},
        TEACHER: {"accuracy": 0.5},
    }
    comparison = recorded.Comparison("distilled − untrained", "nll", Interval(-0.5, -0.6, -0.4))
    text = recorded.headline_of(40, "gpt-x", table, [comparison])
    assert text == (
        "On 40 held-out answers of gpt-x, training changed the student's −log q from 2.000 to 1.500 nats a token "
        "(paired difference -0.500 [-0.600, -0.400]), and its right answers from 10.0% to 30.0%; of the "
        "recorded answers 50.0% are right."
    )
    assert "no interval" in recorded.headline_of(4, "x", table, [])


# Whole evaluations


@pytest.fixture
def stranger(run, tmp_path):
    """(recipe, run) whose manifest names a teacher that is not on this machine."""
    recipe, folder = run
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    for stage in ("generated", "curated"):
        facts = corpus.manifest(copy / stage)
        hosted = {"engine": "openai", "model": "hosted-model", "revision": "2026-01", "dtype": "", "tokenizer": ""}
        teachers = {name: {**known, **hosted, "vocab_size": 0} for name, known in facts["teachers"].items()}
        (copy / stage / "manifest.json").write_text(json.dumps({**facts, "teachers": teachers}))
    return recipe, copy


def test_page_and_card_show_the_recorded_evaluation(stranger):
    recipe, folder = stranger
    with measured_here():
        found = distill.evaluate(recipe, folder)
    assert list(found.table) == [TEACHER, "untrained", "cross-entropy", "distilled"]
    assert "answers of hosted-model" in found.headline
    assert found.models[TEACHER] == "the recorded answers of hosted-model"
    assert {part.name.partition(":")[0] for part in found.parts} <= {"length", "answer", "strategy"}
    page = html.unescape(synthgen.report(folder).path.read_text())
    card = (folder / "student" / "README.md").read_text()
    for shown in (page, card):
        assert found.headline in shown
        assert "the recorded answers of hosted-model" in shown
        assert "bits a byte" in shown
        assert "KL to the teacher" not in shown
        assert "same most likely token" not in shown
    assert page.index(found.headline) < page.index('<dl class="figures">'), "the page opens with the result"
    assert str(recipe.teacher.model) not in card.partition("Sources of the student")[0]
    head = ModelCard.load(folder / "student" / "README.md").data
    results = {one.metric_type: one.metric_value for one in head.eval_results}
    assert results["nll"] == found.table["distilled"]["nll"].mean
    assert head.license == "apache-2.0", "its layers are the teacher's"
    assert head.base_model is None, "the teacher of the recipe is a folder"


def test_rates_of_right_answers_stand_beside_the_teachers(stranger):
    """The seeds have references, so the answers of teacher and students are checked in the same way."""
    recipe, folder = stranger
    with measured_here():
        found = distill.evaluate(recipe, folder)
    rows = [row for _, some in corpus.records(folder / "curated", "data", "test") for row in some]
    first = {repr(row.prompt): row for row in sorted(rows, key=lambda row: row.id, reverse=True)}
    right = [synthgen.verify.matches_any(row.text, row.reference) for row in first.values()]
    assert found.counts["prompts_answered"] == len(right)
    assert found.table[TEACHER]["accuracy"].mean == pytest.approx(np.mean(right))
    assert {c.name for c in found.comparisons if c.measure == "accuracy"} == {
        "distilled − untrained",
        "distilled − cross-entropy",
        f"distilled − {TEACHER}",
    }
    tokens = [row.usage["completion_tokens"] for row in first.values()]
    assert found.table[TEACHER]["answer_tokens"] == pytest.approx(np.mean(tokens))


def test_a_judge_belongs_to_the_evaluation(teacher, tmp_path, serve):
    """The judge always prefers the first answer, so all pairs tie. The cost of the judge is stored in the student's
    folder.
    """
    from distill.evaluation import judged

    server = serve()
    recipe = recipe_of(tmp_path / "task", teacher, learning_rate=SAME, num_train_epochs=1)
    critic = {"engine": "openai", "model": "critic", "base_url": server.url, "api_key_env": "LOOPBACK_KEY"}
    values = recipe.model_dump(mode="json")
    values["teachers"] = {"writer": values.pop("teacher"), "critic": {**critic, "prices": {"input": 1, "output": 1}}}
    values["evaluate"]["judge"] = "critic"
    recipe = Recipe.model_validate(values)
    rows = dataset(tmp_path / "rows", songs())
    student = unaudited.train(recipe, rows, tmp_path / "student").folder
    asked: dict[str, list[str]] = {}
    real = judged._request

    def request(*arguments):
        made = real(*arguments)
        asked[str(made.messages[0]["content"])] = ["A"]
        server.set(answers=asked)
        return made

    with measured_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(judged, "_request", request)
        found = distill.evaluate(recipe, student)
    row = found.table["distilled"]
    assert [row[f"judge_{name}"].mean for name in ("win", "tie", "loss")] == [0, 1, 0]
    assert row["position_bias"].mean == 1
    assert found.counts["judged"] == found.counts["prompts_answered"] == len(asked) / 2
    assert "judge critic saw each pair of answers twice" in found.notes[-1]
    assert "judge prefers the student" in (student / "README.md").read_text()
    assert list((student / "ledger").glob("*.jsonl"))
    assert (student / "evaluation.json").exists()
    unaudited.train(recipe, rows, student, fresh=True)
    assert list((student / "ledger").glob("*.jsonl")), "what was paid is not forgotten"


def test_an_encoder_decoder_is_measured_too(teacher, tmp_path):
    config = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    recipe = recipe_of(tmp_path / "task", teacher, student={"kind": "seq2seq", "config": config}, num_train_epochs=10)
    student = unaudited.train(recipe, dataset(tmp_path / "rows", songs()), tmp_path / "student").folder
    with measured_here():
        found = distill.evaluate(recipe, student)
    assert difference(found, "nll").high < -0.5


def test_text_that_the_tokenizer_does_not_know_has_no_bits_a_byte(sung, monkeypatch):
    recipe, _, student, _ = sung
    real = recorded.recorded_rows
    monkeypatch.setattr(recorded, "recorded_rows", lambda *given: replace(real(*given), unknown=3))
    with measured_here():
        found = distill.evaluate(recipe, student, fresh=True)
    assert found.table["distilled"]["bits_per_byte"] is None
    assert not [c for c in found.comparisons if c.measure == "bits_per_byte"]
    assert any("does not know 3 parts" in note for note in found.notes)
