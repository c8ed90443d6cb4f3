"""Ids of requests and rows: which values the ids depend on, and that they equal the ids of earlier versions."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from synthgen.generation.casting import versions
from synthgen.generation.inputs import read_inputs, runner
from synthgen.generation.rounds import Row, lockstep
from synthgen.recipe import load_recipe, with_values
from synthgen.requests import Lineage, Request, identify
from synthgen.tables.strategies import STRATEGIES
from synthgen.teachers.base import Reply

TEMPLATES = {
    "user": "{{ question }}\n",
    "system": "Help {{ id }}.",
    "teacher_system": "Think first.",
    "teacher_user": "Q: {{ question }}",
    "assistant": "{{ answer }}",
    "hint": "{{ question }} (It is {{ answer }}.)",
    "judge": "Q: {{ question }}\nA: {{ completion }}\nMark?",
    "new": "{% for e in examples %}{{ e.question }}\n{% endfor %}Another?",
    "new_system": "Invent.",
    "evolve_a": "Harder: {{ question }}",
    "evolve_b": "Other: {{ question }}",
    "turn_system": "On {{ answer }}.",
    "ask": "You are {{ id }}.",
    "paraphrase": "Say: {{ question }}",
    "translate": "To French: {{ question }}",
    "back": "To English: {{ translation }}",
    "questions": "List about {{ id }}.",
    "user_turn": "{% for m in conversation %}{{ m.role }}={{ m.content }};{% endfor %}",
}
EXAMPLES = [{"id": "e1", "question": "1 + 1?", "answer": "2"}, {"id": "e2", "question": "Größe?", "answer": "groß"}]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
NAMES = ["Tom", "Lily", "Max", "Emma"]
SEEDS = [
    {
        "id": f"s{i}",
        "question": f"{NAMES[i % 4]} has {i} of his apples, é?",
        "answer": str(i % 3),
        "prompt": f"Why {i}?",
        "completion": f"So {i}.",
        "tools": TOOLS if i % 2 else None,
    }
    for i in range(24)
]
MODELS = {"one": "org/one", "two": "org/two", "three": "org/three"}
STEPS = {"candidates": 3, "rounds": 3, "shown": 3}
# The recipe sections of each strategy and variant. `teachers` is how many of MODELS a recipe uses.
SECTIONS = {
    "classify": {"generate": {"labels": ["yes", "no", "maybe"]}},
    "classify_votes": {"generate": {"labels": ["0", "1", "2"]}},
    "score": {"logits": {"kind": "topk", "k": 4}},
    "best_of_n probability": {"steps": {**STEPS, "choose": "probability", "judge": "two"}, "teachers": 2},
    "best_of_n likelihood": {"steps": {**STEPS, "choose": "likelihood"}},
    "preference reference": {"steps": {**STEPS, "choose": "reference"}},
    "consensus": {"teachers": 3},
    "disagreement": {"teachers": 3},
    "evolve": {"steps": {**STEPS, "rewriter": "two"}, "teachers": 2},
    "answer tools": {"teacher": {"engine": "openai", "model": "org/one", "license": "MIT"}},
    "answer mixture": {"teachers": 3, "mixture": {"one": 2, "three": 1}},
}
# For each recipe: the number of requests, a hash of the request ids, the number of rows, and a hash of the row ids.
# These values were computed with commit 199c186 (which spelled `rationalize` with an s) for the same seeds, templates
# and replies. Two changes are more recent: the judge's labels are now "Yes" and "No", and the line of an answer is not
# taken for a question.
BEFORE = {
    "answer": (48, "1ab08ee9c847d382", 48, "1ab08ee9c847d382"),
    "rationale": (48, "1ab08ee9c847d382", 48, "1ab08ee9c847d382"),
    "classify": (24, "4cfbf4a0fb234c42", 24, "4cfbf4a0fb234c42"),
    "embed": (24, "58e09b4ba41f1990", 24, "58e09b4ba41f1990"),
    "score": (24, "cf91e592c388f2e6", 24, "cf91e592c388f2e6"),
    "rationalize": (80, "9f5e5cb89e2a91fc", 27, "9140b4c90aec840b"),
    # these values were computed when the strategy was added
    "classify_votes": (72, "c7f2440f72e8e2f4", 24, "892f918b7bf4b421"),
    "vote": (128, "17311c5045a2566e", 34, "5fb3ddffb6a9c969"),
    "best_of_n": (288, "5a7a63e614266e7c", 48, "b2035c56e950fb5a"),
    "best_of_n probability": (288, "b8d83fa60940523b", 48, "c60c9008ea1cafe0"),
    "best_of_n likelihood": (288, "6f4509be54780223", 48, "c246f09fc9264aab"),
    "preference": (288, "5a7a63e614266e7c", 96, "f2d2a1d1bf25e5ff"),
    "preference reference": (144, "736c34a4b7cf0f3a", 64, "0ea18444d51e1986"),
    "consensus": (144, "11510db5c7424d2a", 41, "9f05aa5ded845ef1"),
    "disagreement": (144, "11510db5c7424d2a", 129, "56ce19c5410a62c5"),
    "self_instruct": (96, "4f7b4a3478ce4467", 48, "3fb2dd6244c5ca08"),
    "evolve": (288, "ad4103a346bef399", 144, "050307587e63df9f"),
    "magpie": (96, "bc1a5acc91ca37b1", 48, "d728daaac5d36295"),
    "personas": (96, "9a0916b444354bf4", 48, "00d0fffef643a8c1"),
    "paraphrase": (96, "b0287c2851732e8d", 48, "587e1a603f3c998a"),
    "back_translation": (144, "041bfea18244ba01", 48, "33569bf5acadedd1"),
    "counterfactual": (96, "c1a0d0a2b6c78df6", 96, "c1a0d0a2b6c78df6"),
    "extract": (96, "a6bec811d3d75319", 48, "5ab91dcff7601a1d"),
    "conversation": (240, "d55336c8714fda26", 144, "9d94fd6d924da8b7"),
    "answer tools": (48, "66892a8836c9326e", 48, "66892a8836c9326e"),
    "answer mixture": (48, "e5a737bc0c746bff", 48, "e5a737bc0c746bff"),
}


def recipe(folder: Path, case: str):
    sections = dict(SECTIONS.get(case, {}))
    source = {"path": "seeds.jsonl", "source": "t", "license": "MIT", "id": "id", "group": "id", "reference": "answer"}
    generate = {"num_generations": 2, "temperature": 0.7, "top_p": 0.9, "seed": 5, "answer_marker": "Answer:"}
    values = {
        "task": "t",
        "strategy": case.split()[0],
        "seeds": [source],
        "split": {"test": 0.3, "seed": 3},
        "generate": {**generate, **sections.pop("generate", {})},
        "steps": STEPS,
    }
    if count := sections.pop("teachers", 0):
        values["teachers"] = {name: {"model": MODELS[name], "license": "MIT"} for name in list(MODELS)[:count]}
    else:
        values["teacher"] = {"model": "org/one", "license": "MIT"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**values, **sections}, sort_keys=False))
    for name, text in TEMPLATES.items():
        (folder / f"{name}.j2").write_text(text)
    for name, rows in (("examples", EXAMPLES), ("seeds", SEEDS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_recipe(folder / "recipe.yaml")


def replied(request: Request) -> Reply:
    """A reply that depends only on the request's id. There are few different answers, so that some answers get a
    majority.
    """
    number = int(request.id, 16)
    if request.kind == "classify":
        weights = [1 + (number >> 4 * n) % 7 for n in range(len(request.labels))]
        return Reply(request.labels[0], label_probs=[w / sum(weights) for w in weights], finish_reason="stop")
    if request.kind == "score":
        return Reply("So.", token_ids=[1, 2], token_logprobs=[-1.0, -(number % 5)], finish_reason="stop")
    if request.sampling["temperature"] == 0:
        return Reply(f"Mark: {1 + number % 10}", finish_reason="stop")
    text = f"{1 + number % 9}. It is {number % 1009}?\nAnswer: {number % 3}"
    return Reply(text, finish_reason="stop", token_ids=[3, number % 50])


def digest(ids: list[str]) -> str:
    return hashlib.sha256("".join(ids).encode()).hexdigest()[:16]


@pytest.mark.parametrize("case", BEFORE)
def test_ids_are_those_of_earlier_versions(case, tmp_path):
    inputs = read_inputs(recipe(tmp_path, case))
    jobs = inputs.jobs({name: f"{model}@rev" for name, model in versions(inputs.recipe).items()})
    asked = []

    def ask(requests):
        asked.extend(request.id for request in requests)
        return [replied(request) for request in requests]

    run = runner(inputs.recipe)
    outcomes = lockstep([run(job) for job in jobs.range(0, len(jobs))], ask)
    rows = [one.record.id for several in outcomes for one in several if isinstance(one, Row)]
    assert (len(asked), digest(asked), len(rows), digest(rows)) == BEFORE[case]


def test_every_strategy_is_among_them():
    assert {case.split()[0] for case in BEFORE} == set(STRATEGIES)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("reasoning", (180, "0065411377c919ca66c075f91eb700ca", "b843e31d1c024d36")),
        ("classify", (640, "0071dabb769c64f8823610524da4d427", "bf9568efee2f0015")),
        ("instruct", (48, "02aff327fd5308513c7d1b75e51317d4", "eb9127ddc7ce69b4")),
    ],
)
def test_ids_of_the_shipped_recipes_are_what_they_were(name, before):
    """The number of jobs and the sorted ids of their first requests are those of commit 58c549f. The order of the jobs
    depends on the splits.
    """
    inputs = read_inputs(with_values(load_recipe(name), {"seeds.0.limit": before[0]}))
    jobs = inputs.jobs(dict.fromkeys(versions(inputs.recipe), "demo@sha256:0123"))
    run = runner(inputs.recipe)
    ids = sorted(next(run(job))[0].id for job in jobs.one_by_one())
    assert (len(ids), ids[0], digest(ids)) == before


def test_each_part_of_a_request_is_in_its_id():
    user = [{"role": "user", "content": "Why?"}]
    lineage = Lineage("s", "train", user, ())
    text = ({"role": "assistant", "content": "a"},)
    other = ({"role": "assistant", "content": "b"},)
    plain = Request("score", user, {"seed": 1})
    requests = [
        plain,
        Request("sample", user, {"seed": 1}),
        Request("score", [*user, *user], {"seed": 1}),
        Request("score", user, {"seed": 2}),
        Request("score", user, {"seed": 1}, labels=("a",)),
        Request("score", user, {"seed": 1}, open_turn=True),
        Request("score", user, {"seed": 1}, tools=(TOOLS[0],)),
        Request("score", user, {"seed": 1}, completion=text),
        Request("score", user, {"seed": 1}, completion=other),
        Request("score", user, {"seed": 1}, completion=text, completion_ids=(1,)),
    ]
    ids = [identify(request, lineage, "t") for request in requests]
    ids.append(identify(plain, Lineage("s2", "train", user, ()), "t"))
    ids.append(identify(plain, Lineage("s", "train", [*user, *user], ()), "t"))
    ids.append(identify(plain, lineage, "t2"))
    assert len(set(ids)) == len(ids)
    # Split, reference, parents, group and role do not change the reply, so the id does not depend on them.
    elsewhere = Lineage("s", "test", user, (), reference=["a"], parents=("p",), group_id="g", pair_role="chosen")
    assert identify(plain, elsewhere, "t") == ids[0]
    assert identify(Request("score", user, {"seed": 1}, target=False, text="x", teacher="y"), lineage, "t") == ids[0]
