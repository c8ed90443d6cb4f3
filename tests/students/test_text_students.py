"""Students of teachers that run elsewhere: they learn text, or the probabilities that a server sends with the text."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from support.commands import warm
from support.measuring import measured_here
from support.rows import dataset_of
from support.serving import write_recipe
from support.small import byte_tokenizer, small_task, small_teacher
from support.unaudited import train
from support.wire import reply_with
from transformers import AutoModelForCausalLM, AutoTokenizer

import synthgen
from distill.job import Job
from distill.students.completions import read_lesson
from synthgen import corpus, logits
from synthgen.errors import RecipeError, TeacherError, UserError
from synthgen.lm.sampling import with_end
from synthgen.results.evaluation import read_evaluation
from synthgen.ui import UI

MERGES = (("t", "h"), ("e", "Ġ"), ("Ġ", "t"))
LOOSE = {"truncated": False, "repetition": None, "length": None, "duplicates": False}
SHORT = {"batch_size": 4, "max_steps": 3, "save_steps": 2, "learning_rate": 1e-3, "baseline": False}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The folder of a checkpoint with its own tokenizer."""
    return small_teacher(tmp_path_factory.mktemp("student") / "checkpoint", seed=3, merges=MERGES)


def curated(tmp_path, server, student, train_keys=None, **sections):
    """(recipe, run) of a server's replies, with a student that starts as the checkpoint `student`."""
    keys = {"student": {"model": str(student)}, **SHORT, **(train_keys or {})}
    path = write_recipe(tmp_path / "task", server.url, train=keys, curate=LOOSE, **sections)
    recipe, run = synthgen.load_recipe(path), tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    return recipe, run


def lesson_of(recipe, run):
    return read_lesson(Job(recipe, recipe.train, run / "curated", run / "student", UI(quiet=True)))


def test_text_of_a_server_teaches_a_checkpoint_with_its_own_tokenizer(serve, tmp_path, student):
    recipe, run = curated(tmp_path, serve(), student)
    assert recipe.train.kd_weight == 0, "the server sends no distributions"
    job = Job(recipe, recipe.train, run / "curated", run / "student", UI(quiet=True))
    rows = {record.id: record for _, some in corpus.records(run / "curated") for record in some}
    show = job.tokens.tokenizer.decode
    for row in read_lesson(job).rows:
        assert show(row.completion) == f"{rows[row.id].text}<|im_end|>"
        assert show(row.prompt).startswith("<|im_start|>user\nWhat is ")
        assert row.target is None
    trained = train(recipe, run)
    assert trained.training.targets is None
    assert trained.training.rows == sum(record.split == "train" for record in rows.values())
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(student).get_vocab()
    before = AutoModelForCausalLM.from_pretrained(student).state_dict()
    after = AutoModelForCausalLM.from_pretrained(trained.folder).state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_most_probable_tokens_of_a_server_teach_by_kl(serve, tmp_path):
    tokenizer = byte_tokenizer()
    vocabulary = [[tokenizer.convert_tokens_to_ids(letter), letter] for letter in "abcdefghijklmnop"]
    own = small_teacher(tmp_path / "own", seed=3)
    served = small_teacher(tmp_path / "served", seed=4)
    other = AutoTokenizer.from_pretrained(served)
    other.chat_template = other.chat_template.replace("assistant", "Assistant")
    other.save_pretrained(served)
    recipe, run = curated(
        tmp_path,
        serve(vocab=vocabulary),
        own,
        {"kd_weight": 0.9},
        teacher={"tokenizer": str(served)},
        logits={"kind": "topk", "k": 4},
    )
    lesson = lesson_of(recipe, run)
    assert lesson.data.meta["kind"] == "topk"
    for row in lesson.rows:
        assert len(row.target) == len(row.completion)
        assert row.completion[-1] == tokenizer.eos_token_id, "a finished reply ends, though the server does not list it"
        assert (row.target.ids[-1, 0], row.target.logprobs[-1, 0]) == (tokenizer.eos_token_id, 0.0)
        assert np.isneginf(row.target.log_tail[-1])
    trained = train(recipe, run)
    assert trained.training.targets.kind == "topk"
    assert all(np.isfinite(step["loss"]) for step in trained.training.metrics["distilled"])


def test_distributions_over_other_tokens_are_aligned_in_the_same_recipe(serve, tmp_path, student):
    tokenizer = byte_tokenizer()
    vocabulary = [[tokenizer.convert_tokens_to_ids(letter), letter] for letter in "thabc"]
    served = small_teacher(tmp_path / "served", seed=4)
    keep = {"teacher": {"tokenizer": str(served)}, "logits": {"kind": "topk", "k": 4}}
    with pytest.raises(RecipeError, match=r"another vocabulary than teacher\.tokenizer") as caught:
        curated(tmp_path / "first", serve(vocab=vocabulary), student, {"kd_weight": 0.9}, **keep)
    assert "train.across: {}" in caught.value.hint
    assert not (tmp_path / "first" / "run" / "generated").exists(), "it is refused before anything is asked"
    recipe, run = curated(
        tmp_path / "second", serve(vocab=vocabulary), student, {"kd_weight": 0.9, "across": {}}, **keep
    )
    lesson = lesson_of(recipe, run)
    assert lesson.across.tokens_by_divergence > 0
    assert lesson.across.tokens_by_uld > 0, "some of the student's tokens are two of the teacher's"
    assert all(np.isneginf(row.target.log_tail[-1]) for row in lesson.rows), "the end is learned"
    assert all(np.isfinite(step["loss"]) for step in train(recipe, run).training.metrics["distilled"])


def test_two_servers_teach_one_student(serve, tmp_path, student):
    server = serve()
    teachers = {
        name: {
            "engine": "openai", "model": name, "base_url": server.url, "api_key_env": "LOOPBACK_KEY", "license": "MIT",
        }
        for name in ("one", "two")
    }  # fmt: skip
    keys = {"student": {"model": str(student)}, **SHORT}
    path = write_recipe(tmp_path / "task", server.url, train=keys, curate=LOOSE)
    values = synthgen.load_recipe(path).model_dump(mode="json", exclude={"teacher"})
    recipe = synthgen.Recipe.model_validate({**values, "teachers": teachers, "mixture": {"one": 1, "two": 1}})
    run = tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    assert {r.teacher for _, some in corpus.records(run / "curated") for r in some} == {"one", "two"}
    assert train(recipe, run).training.rows


def choosing(labels: list[str], share: float) -> dict:
    """A reply whose only token is the more probable of two labels. The labels have the probabilities 0.9 · `share` and
    0.9 · (1 − `share`), each plus 0.0001.
    """
    shares = {labels[0]: 0.9 * share + 1e-4, labels[1]: 0.9 * (1 - share) + 1e-4}
    top = [
        {"token": label, "logprob": math.log(p), "bytes": list(label.encode())}
        for label, p in sorted(shares.items(), key=lambda item: -item[1])
    ]
    return reply_with({"content": top[0]["token"]}, {"logprobs": {"content": [{**top[0], "top_logprobs": top}]}})


@pytest.mark.parametrize("kind", ["classifier", "encoder"])
@pytest.mark.parametrize("strategy", ["classify", "classify_votes"])
def test_labels_of_a_server_teach_classifiers(serve, tmp_path, kind, strategy):
    labels = ["payment", "delivery"]
    server = serve(labels=["payment", "Delivery."])
    if strategy == "classify":
        server.set(answers={f"What is {n}?": [{"body": choosing(labels, n / 24)}] for n in range(24)})
    config = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = small_teacher(tmp_path / "words", seed=1)
    section = {"kind": kind}
    if kind == "encoder":
        section |= {"config": {**config, "intermediate_size": 16, "vocab_size": 300}, "tokenizer": str(tokenizer)}
    generate = {"labels": labels, **({"temperature": 1.0} if strategy == "classify_votes" else {})}
    path = write_recipe(
        tmp_path / "task", server.url, seeds=24, strategy=strategy, generate=generate, steps={"candidates": 3},
        curate=LOOSE, train={"student": section, **SHORT}, split={"test": 0.25},
    )  # fmt: skip
    recipe, run = synthgen.load_recipe(path), tmp_path / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    found = [r for _, some in corpus.records(run / "curated") for r in some]
    assert found
    assert all(sum(r.label_probs) == pytest.approx(1, abs=1e-6) for r in found)
    trained = train(recipe, run)
    assert trained.training.rows
    assert all(np.isfinite(step["loss"]) for step in trained.training.metrics["distilled"])


def test_the_rejected_side_of_a_pair_is_not_learned(tmp_path, student):
    sides = [("chosen", "Good."), ("rejected", "Bad.")]
    rows = [
        {"prompt": f"{n}?", "completion": f"{text} {n}", "pair_role": role, "group_id": str(n), "split": "train"}
        for n in range(6)
        for role, text in sides
    ]
    recipe, source = dataset_of(tmp_path, rows, student)
    trained = train(recipe, source, tmp_path / "mine")
    assert trained.training.rows == 6
    assert trained.training.left_out["rejected_side"] == 6


def test_a_data_set_needs_no_teacher(tmp_path, student):
    recipe, source = dataset_of(tmp_path, [{"prompt": f"{n}?", "completion": f"{n}!"} for n in range(12)], student)
    assert recipe.teacher is None
    trained = train(recipe, source, tmp_path / "mine")
    assert trained.training.rows
    again = synthgen.load_recipe(tmp_path / "mine")
    assert again.train.student.model == str(student)
    (tmp_path / "mine" / "recipe.yaml").write_text("task: mine\n")
    with pytest.raises(UserError, match="not a file that `distill train` wrote"):
        train(recipe, source, tmp_path / "mine")


def test_a_recipe_without_a_teacher_cannot_ask(tmp_path, student):
    recipe, _ = dataset_of(tmp_path, [{"prompt": "a", "completion": "b"}], student)
    with pytest.raises(RecipeError, match="key 'teacher' is missing"):
        synthgen.generate(recipe, tmp_path / "run")


def test_plan_refuses_a_student_that_cannot_learn(serve, tmp_path, student):
    server = serve()
    bare = small_teacher(tmp_path / "bare", seed=3)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((bare / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    hides = small_teacher(tmp_path / "hides", seed=3)
    (hides / "chat_template.jinja").write_text("{% for m in messages[-1:] %}{{ m['content'] }}{% endfor %}")
    for model, says in ((bare, "has no chat template"), (hides, "hides the system message")):
        task = tmp_path / f"task-{model.name}"
        path = write_recipe(task, server.url, train={"student": {"model": str(model)}})
        (task / "system.j2").write_text("Be brief.\n")
        with pytest.raises(RecipeError, match=says) as caught:
            synthgen.plan(synthgen.load_recipe(path))
        assert caught.value.hint
    assert server.stats()["requests"] == 0


def test_a_checkpoint_without_a_template_gets_one(tmp_path, student):
    bare = small_teacher(tmp_path / "bare", seed=3)
    tokenizer = AutoTokenizer.from_pretrained(bare)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    rows = [{"prompt": f"{n}?", "completion": "b"} for n in range(6)]
    (tmp_path / "mine.jinja").write_text("{% for m in messages %}{{ m['role'] }}={{ m['content'] }}\n{% endfor %}")
    for name, template in ((str(tmp_path / "mine.jinja"), "user="), (str(student), "<|im_start|>user")):
        recipe, source = dataset_of(tmp_path, rows, bare, **{"train.student.chat_template_path": name})
        folder = train(recipe, source, tmp_path / f"student-{len(name)}").folder
        written = AutoTokenizer.from_pretrained(folder)
        assert written.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False).startswith(template)
    recipe, source = dataset_of(tmp_path, rows, bare, **{"train.student.chat_template_path": str(bare)})
    with pytest.raises(RecipeError, match="has no chat template"):
        train(recipe, source, tmp_path / "none")


def test_a_tokenizer_without_an_end_token_is_said(tmp_path):
    endless = small_teacher(tmp_path / "endless", seed=3)
    tokenizer = AutoTokenizer.from_pretrained(endless)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer.eos_token = None
    tokenizer.save_pretrained(endless)
    recipe, source = dataset_of(tmp_path, [{"prompt": f"{n}?", "completion": "b"} for n in range(6)], endless)
    trained = train(recipe, source, tmp_path / "mine")
    assert "does not learn where an answer ends" in trained.training.learns_by
    assert "does not learn where an answer ends" in (trained.folder / "README.md").read_text()


def test_a_last_position_for_the_end():
    drawn = logits.Sampled(np.array([1, 2, 2], np.int32), np.array([3, 1, 4]), np.array([2, 1]))
    longer = with_end(drawn, 9)
    assert (longer.ids.tolist(), longer.counts.tolist()) == ([1, 2, 2, 9], [3, 1, 4, 4])
    assert longer.uniques.tolist() == [2, 1, 1]


def test_one_command_from_a_server_to_a_measured_student(serve, tmp_path, student):
    server = serve()
    keys = {"student": {"model": str(student), "license": "MIT"}, **SHORT, "max_steps": 12, "learning_rate": 1e-2}
    path = write_recipe(tmp_path / "task", server.url, train=keys, curate=LOOSE, evaluate={"max_prompts": 2})
    recipe, run = synthgen.load_recipe(path), tmp_path / "run"
    with measured_here():
        assert synthgen.run(recipe, run).worked
        sent = server.stats()["requests"]
        assert not synthgen.run(recipe, run).worked
    assert server.stats()["requests"] == sent
    found = read_evaluation(run / "student" / "evaluation.json")
    change = next(c.difference for c in found.comparisons if c.measure == "nll")
    assert change.mean < change.high < 0, "held-out answers are more likely after training"
    assert "kl" not in found.measures, "a teacher that was not asked is not compared"
    card = (run / "student" / "README.md").read_text()
    assert f"base_model:\n- {student}" not in card, "a local folder is no model of the hub"
    assert "# sums: a student of m" in card
    assert "terms Apache-2.0" in card
    assert "−log q" in (run / "report.html").read_text()


def test_a_local_teacher_with_another_tokenizer_teaches_in_the_same_recipe(tmp_path, student):
    """The teacher runs in this process. The teacher's tokens are bytes, and the student's tokens are longer."""
    teacher = small_teacher(tmp_path / "teacher", seed=4)
    keys = {"student": {"model": str(student)}, **SHORT, "kd_weight": 0.9}
    path = small_task(tmp_path / "task", teacher, seeds=12, logits={"kind": "topk", "k": 8}, train=keys)
    recipe, run = synthgen.load_recipe(path), tmp_path / "run"
    with pytest.raises(RecipeError, match="so the stored distributions do not fit the student") as caught:
        synthgen.plan(recipe)
    assert "train.across: {}" in caught.value.hint
    recipe = synthgen.with_values(recipe, {"train.across": {}})
    synthgen.plan(recipe)
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    trained = train(recipe, run)
    assert trained.training.across.tokens_by_divergence > 0
    assert (
        AutoTokenizer.from_pretrained(trained.folder).get_vocab() == AutoTokenizer.from_pretrained(student).get_vocab()
    )


def test_a_checkpoint_that_does_not_exist_is_reported_before_anything_is_written(tmp_path, student):
    """Nothing is written, so that the corrected command can write to the same folder."""
    rows = [{"prompt": "a?", "completion": "b", "split": "train"}]
    recipe, source = dataset_of(tmp_path, rows, tmp_path / "typo")
    with pytest.raises(TeacherError, match="does not exist"):
        train(recipe, source, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    recipe, source = dataset_of(tmp_path, rows, student)
    assert train(recipe, source, tmp_path / "mine").training.rows == 1


def test_a_data_set_without_a_student_says_what_to_name(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    done = warm("distill", "train", tmp_path / "rows.jsonl", "-o", tmp_path / "mine")
    assert done.code == 2
    assert "name a checkpoint with --student, or a recipe with --recipe" in done.err
    done = warm("distill", "train", tmp_path / "none.jsonl", "--student", "x", "-o", tmp_path / "mine")
    assert done.code == 2
    assert "does not exist" in done.err
    assert "the path of a data set" in done.err
