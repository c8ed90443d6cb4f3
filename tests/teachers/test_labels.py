"""Reads from a reply which label it names, and with which probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.answering import answering, reply
from support.serving import read_generated, write_recipe
from support.small import small_task, small_teacher

import synthgen
from synthgen import corpus
from synthgen.errors import RecipeError
from synthgen.recipe.generate import GenerateSection
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers import labels as labels_module
from synthgen.teachers.labels import LEAST_MASS, apart, classified, most_likely, named
from synthgen.teachers.transformers import LocalModel

PETS = ("cat", "dog", "no animal")
MOODS = ("Ironic", "Sincere")
GRADES = ("1", "5", "10")
DEGREES = ("good", "very good", "very bad")
STARS = ("*", "**", "***")


def shown(token: str, p: float, **others: float) -> dict:
    """An entry of a server's log-probabilities: a token of the reply, and other candidates for its position."""
    top = [{"token": one, "logprob": math.log(q)} for one, q in [(token, p), *others.items()]]
    return {**top[0], "bytes": None, "top_logprobs": top}


def read(text: str, content: list[object], labels: tuple[str, ...] = PETS):
    return classified(Request("classify", [], labels=labels), text, content, None)


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("dog", PETS, "dog"), (" Dog.\n", PETS, "dog"), ("**dog**", PETS, "dog"), ('"No  animal"', PETS, "no animal"),
        ("- cat", PETS, "cat"), ("`cat`", PETS, "cat"), ("The category is dog.", PETS, "dog"),
        ("Label: **cat**", PETS, "cat"), ("The most likely answer is: cat", PETS, "cat"),
        ("10", GRADES, "10"), ("1.", GRADES, "1"), ("**", STARS, "**"), ("C++", ("C", "C++"), "C++"),
        ("very good", ("good", "very good"), "very good"), ("IRONIC", MOODS, "Ironic"), ("猫", ("猫", "犬"), "猫"),
        ("KÖRPER", ("körper", "geist"), "körper"), ("not spam", ("spam", "not spam"), "not spam"),
        # prose, negations, several labels, parts of words and hedges name no label
        ("This is not a dog.", PETS, None), ("not dog", PETS, None), ("a dog", PETS, None), ("dogs", PETS, None),
        ("dog, not cat", PETS, None), ("cat or dog", PETS, None), ("dog?", PETS, None), ("hotdog", PETS, None),
        ("The category is not dog.", PETS, None), ("The category is dog or cat.", PETS, None),
        ("I", MOODS, None), ("I think it is ironic.", MOODS, None), ("Not ironic", MOODS, None), ("", PETS, None),
        ("no", PETS, None), ("10 of 10", GRADES, None), ("100", GRADES, None), ("-1", GRADES, None),
        (".5", GRADES, None), ("!dog", PETS, None), ("(dog)!", PETS, "dog"), ("\u00acdog", PETS, None),
        ("C#", ("C", "C++"), None), ("dog\n\nIt barks.", PETS, None), ("quite good", ("good", "very good"), None),
    ],
)  # fmt: skip
def test_the_label_that_a_reply_names(text, labels, label):
    found = named(text, labels)
    assert (None if found is None else labels[found]) == label
    reply = read(text, [], labels)
    if label is None:
        assert reply.failure is not None
        assert "not one of the labels" in reply.failure[1]
    else:
        assert (reply.answer, reply.text) == (label, text.strip())
        assert list(reply.label_probs) == [float(one == label) for one in labels]
        assert reply.scores == (("label_from_answer", 1.0),)  # the mass is unknown, so the row does not state one


@pytest.mark.parametrize(
    ("text", "content", "labels", "probs", "mass"),
    [
        # the first token decides; candidates that are labels count, in any letter case, and candidates that are not
        # labels do not
        ("cat", [shown("cat", 0.5, Dog=0.3, The=0.1)], PETS, [0.625, 0.375, 0], 0.8),
        ("Cat.", [shown("Cat", 0.5, dog=0.3), shown(".", 1.0)], PETS, [0.625, 0.375, 0], 0.8),
        (" cat", [shown("\u2581cat", 0.5, dog=0.3)], PETS, [0.625, 0.375, 0], 0.8),
        # the probabilities are those at the token with which the label begins
        ('"cat"', [shown('"', 0.9, dog=0.1), shown("cat", 0.6, dog=0.4), shown('"', 1.0)], PETS, [0.6, 0.4, 0], 1.0),
        ("Label: dog", [shown("Label", 0.99, cat=0.01), shown(":", 1.0), shown(" dog", 0.7)], PETS, None, 0.7),
        # labels of several tokens: the probabilities are read along the tokens of the reply
        ("very good", [shown("very", 0.6, good=0.1), shown(" good", 0.5, ly=0.1)], DEGREES, [0.25, 0.75, 0], 0.4),
        (
            "very good",
            [shown("very", 0.5, good=0.2), shown(" good", 0.6, **{" bad": 0.4})],
            DEGREES, [2 / 7, 3 / 7, 2 / 7], 0.7,
        ),
        # one label is the beginning of another
        ("1", [shown("1", 0.6, **{"10": 0.2})], GRADES, [0.75, 0, 0.25], 0.8),
        ("1", [shown("1", 0.8, **{"5": 0.2}), shown("\n", 0.75, **{"0": 0.25})], GRADES, [0.6, 0.2, 0.2], 1.0),
        ("10", [shown("1", 0.8, **{"5": 0.2}), shown("0", 0.75, **{"": 0.25})], GRADES, [0.2, 0.2, 0.6], 1.0),
        ("1", [shown("1", 0.8, **{"5": 0.2})], GRADES, None, 1.0),  # "10" may be written as "1" and "0"
        # the beginning of a label may be the beginning of another word
        ("Sincere", [shown("Sincere", 0.5, I=0.4)], MOODS, None, 0.5),
        ("Sincere", [shown("Sincere", 0.5, The=0.4)], ("Sincere", "Theft"), None, 0.5),
        ("Sincere", [shown("Sincere", 0.5, Iron=0.25)], MOODS, [1 / 3, 2 / 3], 0.75),
        ("Sincere", [shown("Sincere", 0.98, I=0.005)], MOODS, [0, 1], 0.98),
        ("猫", [shown("猫", 0.6, 犬=0.4)], ("猫", "犬"), [0.6, 0.4], 1.0),
        ("cat", [shown("cat", 0.7)], PETS, None, 0.7),  # the server shows no other token
    ],
)  # fmt: skip
def test_probabilities_from_tokens(text, content, labels, probs, mass):
    reply = read(text, content, labels)
    assert reply.failure is None
    scores = dict(reply.scores)
    assert scores["label_mass"] == pytest.approx(mass)
    assert scores["label_from_answer"] == float(probs is None)
    best = labels.index(reply.answer)
    assert list(reply.label_probs) == pytest.approx(probs or [float(n == best) for n in range(len(labels))])


@pytest.mark.parametrize("raw", [[256], [-1], [100.0], [True], ["d"], [], "dog", None])
def test_bytes_that_are_none_are_ignored_and_the_text_of_the_token_counts(raw):
    one = {"token": "dog", "logprob": math.log(0.9), "bytes": raw}
    found = read("dog", [{**one, "top_logprobs": [one]}])
    assert (found.failure, found.text) == (None, "dog")
    assert found.label_probs[1] == pytest.approx(1.0)
    right = {"token": "?", "logprob": math.log(0.9), "bytes": list(b"dog")}
    assert read("dog", [{**right, "top_logprobs": [right]}]).text == "dog"


def test_tokens_that_do_not_reach_the_label_decide_nothing():
    for text in ('"cat"', "The answer is cat."):
        reply = read(text, [shown(text[:3].strip("ca"), 0.98, dog=0.001)])
        assert (reply.answer, dict(reply.scores)) == ("cat", {"label_from_answer": 1.0})


@pytest.mark.parametrize(
    ("text", "content", "reason"),
    [
        ("cat", [shown("cat", 0.004, Well=0.9)], "the labels have 0.40% of the probability, and 1% is needed"),
        ("A cat it is", [shown("A", 0.9, cat=0.002)], "'A cat it is' (the labels have 0.20% of the probability"),
        ("cat", [shown("dog", 0.9)], "do not spell the answer"),
        ("cat", [{"token": "cat", "logprob": 0.93}], "gave 0.93 as a log-probability, which must be at most 0"),
        ("cat", [{"token": "cat", "logprob": math.nan}], "gave nan as a log-probability"),
        ("cat", [{"token": "cat", "logprob": -math.inf}], "gave -inf as a log-probability"),
        ("cat", [{"token": "cat", "logprob": True}], "gave True as a log-probability"),
        ("cat", [{"token": "cat", "logprob": "-1"}], "do not have the expected form"),
        ("cat", [{"token": None, "logprob": -1}], "do not have the expected form"),
        ("cat", ["cat"], "do not have the expected form"),
        ("cat", [shown("cat", 0.9, dog=0.8)], "add up to 1.7"),
        ("cat", [shown("cat", 0.3, dog=0.6)], "the answer is 'cat', but 'dog' has a higher probability"),
    ],
)
def test_replies_that_decide_nothing(text, content, reason):
    reply = read(text, content)
    assert reply.failure is not None
    assert reply.failure[0] == "schema"
    assert reason in reply.failure[1]


def test_a_label_that_begins_another_does_not_count_its_texts():
    assert apart([(1,), (1, 0), (1, 0, 0), (2,)], [0.6, 0.5, 0.2, 0.1]) == pytest.approx([0.1, 0.3, 0.2, 0.1])
    assert apart([(1, 0), (1,)], [0.3, 0.3]) == [0.3, 0.0]
    reply = most_likely(("1", "10"), apart([(1,), (1, 0)], [0.6, 0.5]), "1")
    assert (reply.text, dict(reply.scores)) == ("10", {"label_mass": pytest.approx(0.6)})


def test_a_local_teacher_obeys_the_bound(tmp_path, monkeypatch):
    """The mass is computed from the whole distribution. A row below the bound becomes a failure, which states the mass
    and the text that the teacher would write.
    """
    teacher = small_teacher(tmp_path / "teacher")
    model = LocalModel.open(TeacherSection(model=str(teacher), device="cpu"))
    requests = [
        Request("classify", [{"role": "user", "content": f"Is it {n}?"}], labels=("K", "l", "^"), id=f"{n:032x}")
        for n in range(40)
    ]
    masses = []
    for request, answer in zip(requests, model.classify(requests), strict=True):
        [logp] = model.logprobs([model.render(request.messages)], [[0]])
        probs = logp[0].double().exp()[[model.tokens.ids(label)[0] for label in request.labels]].numpy()
        masses.append(probs.sum())
        if probs.sum() < LEAST_MASS:
            likely = model.tokens.decode([int(logp[0].argmax())])
            assert answer.failure is not None
            assert answer.failure[1].startswith(
                f"the labels have {probs.sum():.2%} of the probability, and 1% is needed"
            )
            assert answer.failure[1].endswith(f"the teacher writes {likely!r}" if likely else "needed")
        else:
            assert dict(answer.scores)["label_mass"] == pytest.approx(probs.sum(), rel=1e-4)
            assert np.abs(np.array(answer.label_probs) - probs / probs.sum()).max() < 1e-4
    monkeypatch.setattr(labels_module, "LEAST_MASS", sorted(masses)[20])
    kept = [answer for answer in model.classify(requests) if answer.failure is None]
    assert 19 <= len(kept) <= 21
    classify = {"strategy": "classify", "generate": {"labels": ["K", "l"]}, "logits": None, "train": None}
    path = small_task(tmp_path / "task", teacher, **classify)
    folder = synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder
    rows = [row for _, some in corpus.records(folder) for row in some]
    assert rows
    assert all(dict((s["name"], s["value"]) for s in row.scores)["label_mass"] >= sorted(masses)[20] for row in rows)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["Spam", "spam"], "'Spam' and 'spam' are one label"),
        (["a", "b", "a"], "'a' and 'a' are one label"),
        (["yes", " yes"], "'yes' and ' yes' are one label"),
        (["no", "no."], "are one label"),
        (["a", " "], "a label is a word or a phrase in one line, not ' '"),
        (["a", "b\nc"], "in one line, not 'b\\\\nc'"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels, reason, tmp_path):
    path = small_task(tmp_path / "task", tmp_path, strategy="classify", generate={"labels": labels}, logits=None)
    with pytest.raises(RecipeError, match=reason):
        synthgen.load_recipe(path)
    assert GenerateSection(labels=("1", "10", "C", "C++", "*", "**", "very good", "good", "猫", "no animal"))


def test_a_row_keeps_the_text_and_the_mass(tmp_path, monkeypatch):
    """The completion is what the server wrote, and the answer is the label."""
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    replies = {
        "one": reply("Label: dog", "stop", [shown("Label", 1.0), shown(":", 1.0), shown(" dog", 0.6, **{" cat": 0.3})]),
        "two": reply("It is not a dog", "stop", [shown("It", 0.9, dog=0.05)]),
        "three": reply("cat", "stop", [shown("cat", 0.009, I=0.9)]),
        "four": reply("no animal", "length"),
    }
    seeds = [{"id": name, "question": name} for name in replies]
    with answering(replies) as url:
        more = {"strategy": "classify", "teacher": {"api_key_env": None, "max_retries": 0}}
        path = write_recipe(tmp_path / "task", url, seeds, generate={"labels": list(PETS)}, **more)
        [row], failures, _ = read_generated(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert (row.text, row.answer) == ("Label: dog", "dog")
    assert {s["name"]: s["value"] for s in row.scores} == {"label_mass": pytest.approx(0.9), "label_from_answer": 0.0}
    assert list(row.label_probs) == pytest.approx([1 / 3, 2 / 3, 0])
    found = {f["seed_id"]: (f["kind"], f["reason"]) for f in failures}
    assert found["two"][1].startswith("the answer is not one of the labels: 'It is not a dog' (the labels have 5.00%")
    assert found["three"][1].startswith("the labels have 0.90% of the probability, and 1% is needed")
    assert found["four"] == ("cut", "the reply was cut off at 3 tokens: 'no animal'")
