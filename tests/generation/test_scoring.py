"""Scores of given completions: against plain forward passes, from several teachers, and for a generated corpus."""

from __future__ import annotations

import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from support.reading import check_logits, files, rows_of
from support.scripted import write

import synthgen
from synthgen import logits
from synthgen.errors import TeacherError
from synthgen.generation.casting import refuse_incapable
from synthgen.logits import LogitsSpec
from synthgen.recipe import load_recipe
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.transformers import LocalModel


def engine(path, batch_size=8):
    return LocalModel.open(TeacherSection(model=path, batch_size=batch_size, device="cpu"))


def score_request(text, ids=(), number=1, messages=None):
    said = messages or [{"role": "user", "content": "Why?"}]
    answer = ({"role": "assistant", "content": text},)
    return Request("score", said, completion=answer, completion_ids=tuple(ids), id=f"{number:032x}")


def test_score_against_a_plain_pass(talker):
    """Compares token log-probabilities and top-k with one float32 forward pass for each row. A completion that is given
    as text gets the tokens of the text and an end token.
    """
    import torch

    teacher = engine(talker[0], batch_size=3)
    texts = ["Because it is so.", "No.", "Ask again tomorrow, when the shop is open, and say who you are. " * 12]
    requests = [score_request(text, number=n) for n, text in enumerate([*texts, *texts], 1)]
    replies = teacher.score(requests, LogitsSpec("topk", k=4))
    for request, reply in zip(requests, replies, strict=True):
        ids = teacher.tokenizer(request.completion[0]["content"], add_special_tokens=False)["input_ids"]
        assert list(reply.token_ids) == [*ids, teacher.tokenizer.eos_token_id]
        assert reply.finish_reason == "stop"
        prompt = teacher.render(request.messages)
        assert list(reply.prompt_token_ids) == prompt
        with torch.inference_mode():
            z = teacher.model(torch.tensor([[*prompt, *reply.token_ids]])).logits[0, len(prompt) - 1 : -1]
        logp = z.float().log_softmax(-1)
        direct = logp[torch.arange(len(reply.token_ids)), torch.tensor(list(reply.token_ids))]
        assert np.abs(direct.numpy() - np.asarray(reply.token_logprobs)).max() < 1e-3
        assert np.abs(logp.topk(4).values.numpy() - reply.target.logprobs).max() < 1e-3


def test_sampled_scores_follow_the_distribution(talker):
    """Compares the counts of 20,000 draws with the probabilities at the temperature. Different requests give different
    draws.
    """
    import torch

    teacher = engine(talker[0])
    spec = LogitsSpec("sampled", 0.7, draws=20_000)
    replies = teacher.score([score_request("So.", number=n) for n in (1, 2)], spec)
    prompt, tokens = list(replies[0].prompt_token_ids), list(replies[0].token_ids)
    with torch.inference_mode():
        z = teacher.model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    p = (z.float() / 0.7).softmax(-1).double().numpy()
    target, start = replies[0].target, 0
    for row, unique in enumerate(target.uniques):
        counts = np.zeros(p.shape[1])
        counts[target.ids[start : start + unique]] = target.counts[start : start + unique]
        start += int(unique)
        assert counts.sum() == 20_000
        likely = p[row] > 0.005
        sigma = np.sqrt(20_000 * p[row][likely] * (1 - p[row][likely]))
        assert (np.abs(counts[likely] - 20_000 * p[row][likely]) < 5 * sigma + 1).all()
    assert not np.array_equal(replies[0].target.ids, replies[1].target.ids)


def test_given_tokens_are_used_only_when_they_say_the_text(talker):
    teacher = engine(talker[0])
    letters = [teacher.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "because"]
    whole = teacher.tokenizer("because", add_special_tokens=False)["input_ids"]
    assert letters != whole
    end = teacher.tokenizer.eos_token_id
    cases = [(letters, letters), ([*letters, end], [*letters, end]), (letters[:-1], [*whole, end]), ([], [*whole, end])]
    cases.append(([10**9], [*whole, end]))
    for given, used in cases:
        [reply] = teacher.score([score_request("because", given)], None)
        assert list(reply.token_ids) == used
    too_long, empty = teacher.score([score_request("word " * 600), score_request("", [end])], None)
    assert too_long.failure[0] == "context"
    assert list(empty.token_ids) == [end]


def test_an_open_turn_stops_where_its_text_does(talker):
    teacher = engine(talker[0])
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How do"}]
    shown = teacher.tokenizer.decode(teacher.tokens.render_open(said))
    assert shown == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHow do"
    said[1]["content"] = ""
    assert teacher.tokenizer.decode(teacher.tokens.render_open(said)).endswith("<|im_start|>user\n")


def test_scoring_generated_rows_gives_the_same_distributions(shrunk, tmp_path, talker):
    """Compares the top-k that was stored during generation with the top-k from scoring the rows of that corpus."""
    spec = {"kind": "topk", "k": 8, "temperature": 2.0}
    made = shrunk("reasoning", logits=spec, generate={"max_new_tokens": 16})
    generated = synthgen.generate(made, tmp_path / "run").folder
    rows = rows_of(generated)
    seeds = [{"path": str(generated / "data"), "source": "ours", "license": "Apache-2.0", "id": "id"}]
    scored_recipe = shrunk("score", seeds=[{**seeds[0], "group": "seed_id"}], logits=spec, prompts=made.prompts)
    scored_recipe = scored_recipe.model_copy(
        update={"seeds": tuple(s.model_copy(update={"limit": None}) for s in scored_recipe.seeds)}
    )
    scored = synthgen.generate(scored_recipe, tmp_path / "scored").folder
    again = {r.seed_id: r for r in rows_of(scored)}
    assert set(again) == {r.id for r in rows}
    ours, theirs = check_logits(generated, rows), check_logits(scored, list(again.values()))
    for r in rows:
        other = again[r.id]
        assert list(other.token_ids) == list(r.token_ids)
        assert (other.prompt, other.teacher_prompt) == (r.prompt, r.teacher_prompt)
        a = ours[r.teacher, r.id][1].target(ours[r.teacher, r.id][2])
        b = theirs[other.teacher, other.id][1].target(theirs[other.teacher, other.id][2])
        assert (a.ids == b.ids).mean() > 0.99  # ids with nearly equal probabilities may be in another order
        for name in ("logprobs", "log_tail", "log_z"):
            assert np.abs(getattr(a, name) - getattr(b, name)).max() < 2e-3


def test_several_teachers_speak_of_the_same_tokens(talker, tmp_path):
    """A mixture whose rows a third teacher scores. Each row has the logits of its own teacher and of the third teacher
    only.
    """
    third = tmp_path / "third"
    shutil.copytree(talker[0], third)
    text = (third / "config.json").read_text()
    (third / "config.json").write_text(text.replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-02'))
    assert text != (third / "config.json").read_text()
    names = {"a": talker[0], "b": talker[1], "c": str(third)}
    teachers = {name: {"model": model, "license": "Apache-2.0", "device": "cpu"} for name, model in names.items()}
    sections = {"teacher": None, "teachers": teachers, "mixture": {"a": 1, "b": 1}, "split": {"test": 0.25}}
    generate = {"num_generations": 2, "max_new_tokens": 6, "shard_size": 8}
    recipe = load_recipe(
        write(tmp_path / "task", 16, **sections, generate=generate, logits={"kind": "topk", "k": 8, "score_by": ["c"]})
    )
    folder = synthgen.generate(recipe, tmp_path / "run").folder
    rows = rows_of(folder)
    assert len(rows) == 32
    by = Counter(r.teacher for r in rows)
    assert set(by) == {"a", "b"}
    where = check_logits(folder, rows)
    assert Counter(name for name, _ in where) == {**by, "c": 32}
    scorer = engine(str(third))
    for r in rows:
        path, shard, place = where["c", r.id]
        logits.check_aligned(shard, place, r.id, r.token_ids, path)
        request = score_request(r.text, r.token_ids, messages=r.teacher_prompt or r.prompt)
        [direct] = scorer.score([request], LogitsSpec("topk", k=8))
        expected = np.maximum(direct.target.logprobs, logits.FLOOR)
        assert np.abs(shard.target(place).logprobs - expected).max() < 2e-3
        assert [s["id"].split("@")[0] for s in r.sources if s["role"] == "logits"] == ["third"]
    before = files(folder)
    for lost in [sorted((folder / "data").glob("*"))[0], folder / "manifest.json"]:
        lost.unlink()
    assert files(synthgen.generate(recipe, tmp_path / "run").folder) == before


def test_teachers_that_cannot_are_refused_in_one_line(talker, tmp_path):
    def recipe(**sections):
        return load_recipe(write(tmp_path / "task", 4, teacher=None, **sections))

    other = tmp_path / "other"
    shutil.copytree(talker[1], other)
    config = other / "chat_template.jinja"
    config.write_text(config.read_text() + "{# another #}")
    two = {n: {"model": m, "license": "MIT", "device": "cpu"} for n, m in (("a", talker[0]), ("b", str(other)))}
    with pytest.raises(TeacherError, match="different tokenizers"):
        synthgen.generate(recipe(teachers=two, logits={"score_by": ["b"]}), tmp_path / "run")
    same = {n: {"model": talker[0], "license": "MIT", "device": "cpu"} for n in ("a", "b")}
    with pytest.raises(TeacherError, match="'a' and 'b' are the same model"):
        synthgen.generate(recipe(teachers=same, strategy="disagreement"), tmp_path / "run2")

    answers_only = SimpleNamespace(can=frozenset({"sample"}), identity={"engine": "plain", "revision": "0"})
    magpie = recipe(teachers=two, strategy="magpie")
    with pytest.raises(TeacherError, match="'a' \\(plain\\) does not offer 'open_turn'"):
        refuse_incapable(magpie, {"a": answers_only, "b": answers_only})
