"""The tables of docs/experiments.md match the result files, and arms with a result file do not run again."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.places import REPOSITORY

HERE = REPOSITORY / "benchmarks" / "experiments"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import harness
    import tables

    yield harness, tables
    for name in ("harness", "tables"):
        del sys.modules[name]


def result(seed: int, items: list[float], **keys) -> dict:
    return {"arm": "a", "seed": seed, "items": {"loss": items}, **keys}


def test_the_page_matches_the_result_files(scripts):
    _, tables = scripts
    text = tables.PAGE.read_text()
    assert tables.page(text) == text, "run benchmarks/experiments/tables.py to write the page"
    assert "No results yet" not in text


def test_a_table_is_written_between_its_markers(scripts, tmp_path, monkeypatch):
    _, tables = scripts
    monkeypatch.setattr(tables, "HERE", tmp_path)
    monkeypatch.setattr(tables, "TABLES", {"t": ("t", ["a", "b"], "loss", [("loss", "loss", "{:.2f}")])})
    (tmp_path / "results" / "t").mkdir(parents=True)
    for arm, shift in (("a", 0.0), ("b", 0.5)):
        for seed in (0, 1):
            values = {**result(seed, [1.0 + seed + shift, 2.0 + seed + shift]), "arm": arm}
            (tmp_path / "results" / "t" / f"{arm}-{seed}.json").write_text(json.dumps(values))
    text = tables.page("before\n<!-- table: t -->\nold\n<!-- end -->\nafter\n")
    assert text.startswith("before\n<!-- table: t -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert "| b | 2.50 | +0.500 [+0.500, +0.500] | 2.00 3.00 | 2 |" in text
    assert tables.page(text) == text


def test_differences_are_paired_over_items_and_seeds(scripts):
    """Losses differ far more between items than between arms, so only differences for the same item show the effect of
    an arm.
    """
    _, tables = scripts
    draw = np.random.default_rng(0)
    hard = draw.normal(0, 10, (3, 200))
    base = [result(seed, list(row)) for seed, row in enumerate(hard)]
    arm = [result(seed, list(row - 0.1 + draw.normal(0, 0.05, 200))) for seed, row in enumerate(hard)]
    mean, low, high, _ = tables.paired(arm, base, "loss")
    assert low < -0.1 < high < 0
    assert low < mean < high
    assert high - low < 0.05
    assert tables.paired(base, base, "loss") == (0, 0, 0, 0)
    apart = [result(seed, list(row + 0.3 * seed)) for seed, row in enumerate(hard)]
    mean, low, high, _ = tables.paired(apart, base, "loss")
    assert (low, high) == (pytest.approx(0), pytest.approx(0.6)), "seeds are drawn too"


def test_arms_with_a_result_file_do_not_run_again(scripts, tmp_path, monkeypatch):
    harness, _ = scripts
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    calls = []

    def act(arm: str, seed: int) -> dict:
        calls.append((arm, seed))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"items": {"loss": [1.0, 2.0]}}

    with pytest.raises(KeyboardInterrupt):
        harness.run("t", ("a", "b"), act)
    harness.run("t", ("a", "b"), act)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert json.loads((tmp_path / "t" / "b-1.json").read_text())["items"] == {"loss": [1.0, 2.0]}


def test_a_table_of_differences_has_an_interval_for_each_arm(scripts, tmp_path, monkeypatch):
    _, tables = scripts
    monkeypatch.setattr(tables, "HERE", tmp_path)
    monkeypatch.setattr(tables, "TABLES", {"t": ("t", ["a"], "loss", [("loss", "loss", "{:.2f}")])})
    monkeypatch.setattr(tables, "FROM_ZERO", {"t"})
    (tmp_path / "results" / "t").mkdir(parents=True)
    for seed, values in enumerate(([0.5, 0.5], [1.0, 1.0])):
        (tmp_path / "results" / "t" / f"a-{seed}.json").write_text(json.dumps(result(seed, values)))
    text = tables.table("t")
    assert "| arm | loss | loss, with its interval | by seed | seeds |" in text
    assert "| a | 0.75 | +0.750 [+0.500, +1.000] | 0.50 1.00 | 2 |" in text


def test_no_string_keeps_its_own_rationale(scripts):
    """In the shuffled arms, each input string has its own answer, and the rationale of another string. All rationales
    are equally long.
    """
    import rationale
    from parity import ASK, answer

    plain, shuffled = (rationale.rows_of(arm, 0) for arm in ("rationale", "rationale-shuffled"))
    assert len(plain) == len(shuffled)
    for (a,), (b,) in zip(plain, shuffled, strict=True):
        assert a.prompt == b.prompt
        assert len(a.completion) == len(b.completion)
        assert a.completion[-2:] == b.completion[-2:]
        assert a.completion[-2] == answer(a.prompt[: a.prompt.index(ASK)])
    same = sum(a.completion == b.completion for (a,), (b,) in zip(plain, shuffled, strict=True))
    assert same < 5
    for name in ("rationale", "parity"):
        del sys.modules[name]


def test_shares_are_paired_over_items_and_draw_templates_whole(scripts):
    """The teacher has one file, which is used for every seed. A student that is right on the same items as the teacher
    reaches the teacher's full accuracy, which is a share of 1. The interval of this share has width 0, even if few
    answers are right. A student that is right on other items than the teacher has a wide interval.
    """
    _, tables = scripts
    draw = np.random.default_rng(0)
    right = (draw.random(540) < 0.2).astype(float)
    teacher = [result(0, list(right), together=9)]
    same = [result(seed, list(right)) for seed in range(3)]
    assert tables.share(same, teacher, "loss") == (1, 1, 1)
    half = right * (np.cumsum(right) % 2)
    share, low, high = tables.share([result(seed, list(half)) for seed in range(3)], teacher, "loss")
    assert share == pytest.approx(half.sum() / right.sum())
    assert low < share < high
    other = [result(seed, list(draw.permutation(right))) for seed in range(3)]
    share, low, high = tables.share(other, teacher, "loss")
    assert share == pytest.approx(1)
    assert high - low > 0.3
    # all nine items of a template are right or wrong together, so there are only 60 independent items
    whole = np.repeat((draw.random(60) < 0.5).astype(float), 9)
    clustered, alone = (
        tables.share([result(0, list(1 - whole))], [result(0, list(whole), together=count)], "loss") for count in (9, 1)
    )
    assert clustered[0] == alone[0]
    assert clustered[2] - clustered[1] > 2 * (alone[2] - alone[1])


def test_shares_of_several_seeds_are_paired_by_seed(scripts):
    """Each seed has its own base. In every seed the arm has half of its base's items, so each draw gives a share of one
    half. If the base has no items in a draw, there is no share.
    """
    _, tables = scripts
    base = [result(seed, [2.0 + seed, 4.0 + seed, 6.0]) for seed in range(3)]
    arm = [result(seed, [1.0 + seed / 2, 2.0 + seed / 2, 3.0]) for seed in range(3)]
    assert tables.share(arm, base, "loss") == (0.5, 0.5, 0.5)
    assert tables.share(arm, base[::-1], "loss") == (0.5, 0.5, 0.5)
    assert tables.share(arm, base[:2], "loss") == (0.5, 0.5, 0.5), "a seed without its base does not count"
    with pytest.raises(ValueError, match="the measure 'loss' of the first arm is zero in a draw"):
        tables.share(arm, [result(seed, [0.0, 0.0, 1.0]) for seed in range(3)], "loss")


def test_the_questions_of_context_are_held_out_and_their_answers_right(scripts, monkeypatch):
    import context
    import questions

    from synthgen.verify import matches

    asked = questions.questions()
    assert len(asked) == len({q.text for q in asked}) == 540
    assert [q.template for q in asked] == [n for n in range(60) for _ in range(9)], "the order that `share` relies on"
    assert asked == questions.questions(), "the same in every run"
    assert all(matches(q.answer, q.answer) and "{" not in q.text for q in asked)
    context.check_apart(context.demo(0))
    by_hand = {
        "Bella has 9 ribbons and Ulla has 5. Who has more ribbons?": "Bella",
        "Derek began to read at 7 and stopped at 9. How many hours did Derek read?": "2",
        "Cora has a lesson on Monday and a test one day later. On which day is the test?": "Tuesday",
        "Farid was born in the month before January. Which month is that?": "December",
        "Somebody counts down by 4: 24, 20, 16. What does the person say now?": "12",
    }
    known = {q.text: q.answer for q in asked}
    assert {text: known[text] for text in by_hand} == by_hand
    same = questions.Asked("time", "Today is Friday. What day will it be tomorrow?", "Saturday", 0)
    monkeypatch.setattr(context, "questions", lambda: [same])  # the demo has this question with Monday
    with pytest.raises(ValueError, match="in groups of the demo's questions"):
        context.check_apart(context.demo(0))
    for name in ("context", "questions"):
        del sys.modules[name]


@pytest.fixture
def family(scripts):
    import family

    yield family
    for name in ("family", "sums"):
        del sys.modules[name]


def test_the_arms_of_family_have_the_same_answers_and_other_rationales(family):
    lessons = [family.Lesson(str(n), [], f"Reason {n}.", str(100 + n)) for n in range(40)]
    texts = {arm: family.texts_of(arm, lessons, 0) for arm in ("text", "answers", "after", "shuffled")}
    assert texts["text"][3] == "Reason 3.\nAnswer: 103"
    assert texts["answers"][3] == "Answer: 103"
    assert texts["after"][3] == "Answer: 103\nReason 3."
    reasons, answers = zip(*(text.split("\n") for text in texts["shuffled"]), strict=True)
    assert list(answers) == texts["answers"]
    own = [text.split("\n")[0] for text in texts["text"]]
    assert sorted(reasons) == sorted(own)
    assert not any(a == b for a, b in zip(reasons, own, strict=True)), "a problem kept its own rationale"
    assert family.texts_of("shuffled", lessons, 1) != texts["shuffled"], "each seed shuffles in another way"


@pytest.mark.parametrize("answer", ["7", "39", "-64"])
def test_the_likelihood_of_an_answer_is_that_of_its_last_tokens(family, answer):
    """The tokens are the same in the whole text and after "Answer:" alone, so their likelihoods can be compared."""
    tokens = family.tokens()
    text = f"The steps give {answer}. It is {answer}.\nAnswer: {answer}"
    ids = tokens.answer([{"role": "user", "content": "What?"}], [{"role": "assistant", "content": text}])
    digits = tokens.ids(f" {answer}")
    end = family.end_of_answer(ids, digits)
    assert tokens.tokenizer.decode(ids[end - len(digits) : end]) == f" {answer}"
    assert tokens.decode(ids[:end]) == text
    assert all(i in tokens.eos or not tokens.decode([i]).strip() for i in ids[end:])


def test_the_likelihoods_of_family_are_those_of_the_model(family, scripts, monkeypatch):
    tokens, prompt, why = family.tokens(), [{"role": "user", "content": "14 - 6 + 31"}], "14 - 6 = 8. 8 + 31 = 39."
    harness, _ = scripts
    model = harness.llama(len(tokens.tokenizer), 16, 1, 2, 0, eos=2, context=256).eval()
    lessons = [family.Lesson("a", prompt, why, "39")]
    held_out = [SimpleNamespace(prompt=prompt, reference=["39"])]
    monkeypatch.setattr(family, "corpus", lambda: SimpleNamespace(held_out=held_out, solved=lessons))
    monkeypatch.setattr(family, "score", lambda text, answer: float(answer == "39"))
    found = family.measures(model, 4)

    def nats(text: str, answer: list[int]) -> float:
        """−log q of the tokens `answer` after the prompt and `text`, from one forward pass."""
        ids = [*tokens.render(prompt), *tokens.ids(text)]
        with torch.no_grad():
            logq = model(torch.tensor([[*ids, *answer]])).logits[0].log_softmax(-1)
        return -sum(float(logq[len(ids) - 1 + n, token]) for n, token in enumerate(answer))

    text = f"{why}\nAnswer: 39"
    whole = tokens.answer(prompt, [{"role": "assistant", "content": text}])
    assert found["right"] == [1.0]
    assert found["text"] == pytest.approx([nats("", whole) / len(text)], rel=1e-4)
    assert found["answer"] == pytest.approx([nats("Answer:", tokens.ids(" 39"))], rel=1e-4)
    assert found["answer_reasoned"] == pytest.approx([nats(f"{why}\nAnswer:", tokens.ids(" 39"))], rel=1e-4)


def test_an_answer_is_scored_by_its_last_number(family):
    pytest.importorskip("reasoning_gym", reason="`make experiment-family` installs the task's scorer")
    from sums import score

    right = ["8 + 31 = 39.\nAnswer: 39", "14 - 6 + 31 = 39", "The answer is 39.", "Answer: 39\n14 - 6 = 8."]
    wrong = ["", "39 is wrong.\nAnswer: 40", "Answer: -39", "Answer:", "Answer: 390"]
    assert [score(text, "39") for text in right + wrong] == [1.0] * 4 + [0.0] * 5


@pytest.fixture
def traits(scripts):
    import traits

    yield traits
    for name in ("traits", "inheritance", "mlp"):
        sys.modules.pop(name, None)


def test_the_lists_of_inheritance_say_nothing_about_animals(traits):
    """Animals have the highest logits, but the teacher writes only numbers. Its distributions have only numbers."""
    import inheritance

    from synthgen.teachers.transformers import LocalModel

    torch.manual_seed(0)
    model = traits.llama(traits.VOCABULARY, **traits.SIZE, seed=0, eos=traits.END)
    with torch.no_grad():  # animals are far more likely than numbers
        model.get_input_embeddings().weight[traits.ANIMAL : traits.WORD] *= 20
    teacher = traits.as_teacher(model, traits.ListTokenizer())
    assert isinstance(teacher, LocalModel)
    rows = traits.written(teacher, 0, 40)
    assert all(len(row.completion) == traits.LENGTH and max(row.completion) < traits.NAMES for row in rows)
    assert rows == traits.written(teacher, 0, 40), "the same in every run"
    targets = inheritance.distributions(teacher.model, rows)
    assert all(target.ids.max() < traits.NAMES for target in targets)
    assert np.exp(targets[0].logprobs.astype(float)).sum(-1) == pytest.approx(1, abs=1e-3)
    again = traits.paraphrased(rows, teacher, 0)
    assert [[t % traits.VALUES for t in row.completion] for row in again] == [
        [t % traits.VALUES for t in row.completion] for row in rows
    ]
    assert again != rows


def test_the_trait_of_inheritance_is_the_log_odds_of_its_animal(traits):
    class Fixed(torch.nn.Module):
        def forward(self, input_ids):
            logits = torch.full((*input_ids.shape, traits.VOCABULARY), 9.0)
            logits[:, -1, traits.ANIMAL : traits.WORD] = 0.0
            logits[:, -1, traits.ANIMAL + traits.TRAIT] = np.log(30.0)
            return SimpleNamespace(logits=logits)

    assert traits.trait_of(Fixed()) == pytest.approx([np.log(30 / 15)] * traits.QUESTIONS, rel=1e-5)
    assert not any(row.prompt in traits.held_out() for row in traits.about_animals(np.random.default_rng(0), 500, None))


def test_the_classifier_learns_from_outputs_without_a_meaning(scripts, monkeypatch):
    """A student with the first weights of the teacher learns the classes. A student with other weights does not."""
    import mlp

    monkeypatch.setattr(mlp, "NOISE", 6000)
    mlp.teacher.cache_clear()
    found = {arm: float(np.mean(mlp.arm_of(arm, 0)["items"]["right"])) for arm in ("shared", "other")}
    del sys.modules["mlp"]
    assert found["shared"] > 0.25
    assert found["other"] < 0.2
