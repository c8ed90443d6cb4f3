"""Students: the teacher's layers, a stock model, a student that learns, the classifier, and how they are measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.rows import load
from support.small import small_task, small_teacher
from support.training import FULL, LOOSE, curve_of
from support.unaudited import train
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.data import Choice, rows
from distill.evaluation.classifiers import evaluate_mlp
from distill.evaluation.subject import Subject
from distill.intervals import interval
from distill.students.build import layer_map
from distill.students.classifier import Classifier, features
from distill.students.labels import last_question
from distill.students.layers import from_layers
from distill.targets.stored import Rows, batch_loss
from synthgen import corpus, curate, generate
from synthgen.errors import CorpusError, RecipeError, UserError
from synthgen.lm.forward import completion_logits
from synthgen.recipe import Recipe, load_recipe
from synthgen.results.measures import Interval
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI


def loaded(recipe: Recipe, run: Path):
    """(teacher, training set) of a run."""
    teacher = LocalModel.open(recipe.teacher)
    return teacher, load(run / "curated", teacher.render, Choice(512))


def start(teacher: LocalModel, layers: list[int], data, recipe: Recipe) -> dict[str, float]:
    """The terms of the loss by name, over all rows, for an untrained student that consists of these layers of the
    teacher.
    """
    model = from_layers(teacher.model, layers).eval()
    with torch.no_grad():
        z_NV = torch.cat(
            completion_logits(model, [e.prompt for e in data.examples], [e.completion for e in data.examples])
        )
        return batch_loss(z_NV, None, Rows(data.examples, data.examples), recipe.train, data.meta)[1]


def test_a_student_of_all_layers_is_its_teacher(small_run):
    """With top-k of the whole vocabulary the loss is zero, except for the storage error. With draws, the loss is the
    teacher's entropy, except for the sampling error.
    """
    recipe, run = small_run(logits=FULL)
    teacher, data = loaded(recipe, run)
    whole, half = start(teacher, [0, 1], data, recipe), start(teacher, [0], data, recipe)
    assert abs(whole["distillation"]) < 1e-5
    assert half["distillation"] > 0.1
    recipe, run = small_run(logits={"kind": "sampled", "draws": 200})
    teacher, data = loaded(recipe, run)
    logp = torch.cat(
        teacher.logprobs([e.prompt for e in data.examples], [e.completion for e in data.examples])
    ).double()
    entropy_N = -(logp.exp() * logp).sum(-1)
    error = float(((logp.exp() * (logp + entropy_N[:, None]) ** 2).sum(-1) / 200).sum().sqrt() / len(logp))
    z_score = (start(teacher, [0, 1], data, recipe)["distillation"] - float(entropy_N.mean())) / error
    print(f"draws: {z_score:+.1f} standard errors ({error:.4f} nats) from the entropy")
    assert abs(z_score) < 4


def test_every_number_of_layers():
    for depth in range(1, 40):
        for count in range(1, depth + 1):
            found = layer_map(count, depth)
            assert len(found) == count
            assert found == sorted(set(found)), "in order, none twice"
            assert found[0] == 0
            assert count == 1 or found[-1] == depth - 1
            gaps = np.diff(found)
            assert count < 3 or gaps.max() - gaps.min() <= 1, "evenly spread"
    assert layer_map([0, 3, 3, 1], 4) == [0, 3, 3, 1]


@pytest.mark.parametrize("layers", [0, 5, [], [4], [-1], [0, 9]])
def test_layers_that_the_teacher_does_not_have(layers):
    with pytest.raises(RecipeError, match="the teacher has") as caught:
        layer_map(layers, 4)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_layers_are_copies(tmp_path):
    teacher = AutoModelForCausalLM.from_pretrained(small_teacher(tmp_path / "teacher", layers=4))
    student = from_layers(teacher, [3, 1])
    theirs, ours = dict(teacher.named_parameters()), dict(student.named_parameters())
    for name, value in ours.items():
        origin = name.replace("layers.0.", "layers.3.") if "layers.0." in name else name
        assert torch.equal(value, theirs[origin])
    with torch.no_grad():
        next(iter(student.parameters())).add_(1)
    assert not torch.equal(next(iter(student.parameters())), next(iter(teacher.parameters())))
    assert student.config.num_hidden_layers == 2
    assert teacher.config.num_hidden_layers == 4


@pytest.fixture(scope="module")
def learned(small_run, tmp_path_factory):
    """(recipe, run, folder of the student). The student has one of the teacher's two layers and is trained for 25
    epochs on 150 rows.
    """
    recipe, run = small_run(
        seeds=50,
        generate={"num_generations": 4, "max_new_tokens": 12, "shard_size": 64, "seed": 1},
        logits={"kind": "sampled", "draws": 50},
        curate=LOOSE,
        train={
            "student": {"kind": "decoder", "layers": 1},
            "batch_size": 32,
            "num_train_epochs": 25,
            "learning_rate": 1e-2,
            "seed": 2,
        },
    )
    return recipe, run, train(recipe, run, tmp_path_factory.mktemp("learned")).folder


def held_out_kl(teacher: LocalModel, model, run: Path) -> float:
    """KL(teacher ‖ model) in nats a token over the whole vocabulary, on rows of held-out seeds."""
    held_out = [r for r, _ in rows(run / "curated", "test")]
    prompts = [teacher.render(r.prompt) for r in held_out]
    completions = [list(r.token_ids) for r in held_out]
    with torch.no_grad():
        logp = torch.cat(teacher.logprobs(prompts, completions))
        z = torch.cat(completion_logits(model.eval(), prompts, completions))
        return float(torch.nn.functional.kl_div(z.log_softmax(-1), logp, reduction="batchmean", log_target=True))


def test_a_student_learns(learned):
    recipe, run, student = learned
    teacher = LocalModel.open(recipe.teacher)
    curve = curve_of(student, "distillation")
    first, last = float(np.mean(curve[:5])), float(np.mean(curve[-5:]))
    kl = {
        "untrained": held_out_kl(teacher, from_layers(teacher.model, [0]), run),
        "cross-entropy": held_out_kl(teacher, AutoModelForCausalLM.from_pretrained(student / "baseline"), run),
        "distilled": held_out_kl(teacher, AutoModelForCausalLM.from_pretrained(student), run),
    }
    print(f"loss {first:.3f} → {last:.3f}; held-out KL: " + ", ".join(f"{k} {v:.3f}" for k, v in kl.items()))
    assert last < first - 0.2
    assert kl["distilled"] < 0.8 * kl["untrained"]
    assert kl["distilled"] < kl["cross-entropy"]


def test_a_student_is_a_stock_model(learned):
    """transformers alone loads the student and gives the same answers as this package."""
    recipe, _, student = learned
    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    assert model.config.num_hidden_layers == 1
    messages = [{"role": "user", "content": "1 + 2?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    ours = LocalModel.open(recipe.teacher.model_copy(update={"model": str(student)}))
    assert list(ids) == ours.render(messages)
    answer = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)[0, len(ids) :]
    with torch.no_grad():
        logp = model(torch.tensor([[*ids, *answer.tolist()]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
    (mine,) = ours.logprobs([ids], [answer.tolist()])
    assert torch.allclose(logp, mine, atol=1e-4)
    assert tokenizer.decode(answer) is not None
    card = (student / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "Apache-2.0" in card


# How students are measured


def test_a_teacher_is_nowhere_from_itself(learned):
    """In the comparison of `distill eval`, a copy of the teacher has KL 0, and the distilled student is closer to the
    teacher than the untrained student.
    """
    from distill.evaluation.distance import distances, unigram
    from distill.held_out import first_rows

    recipe, run, student = learned
    teacher = LocalModel.open(recipe.teacher)
    models = {
        "copy": from_layers(teacher.model, [0, 1]).eval(),
        "untrained": from_layers(teacher.model, [0]).eval(),
        "distilled": AutoModelForCausalLM.from_pretrained(student),
    }
    held_out = first_rows(run / "curated", "test")
    assert [r.id for r in held_out] == [r.id for r, _ in rows(run / "curated", "test")]
    tokens = sum(len(r.token_ids) for r in held_out)
    found = distances(teacher, models, unigram(run / "curated", 258), held_out, ui=UI(quiet=True))
    kl, agree, nll = found.kl, found.agreement, found.nll
    for name in ("teacher", "teacher, student's prompt", "copy"):
        assert abs(kl[name].sum()) / tokens < 1e-6
        assert agree[name].sum() > 0.999 * tokens
    assert kl["distilled"].sum() < kl["untrained"].sum()
    assert kl["distilled"].sum() / tokens == pytest.approx(held_out_kl(teacher, models["distilled"], run), rel=1e-4)
    # For the teacher, the mean of −log q(token) is the teacher's entropy. For a model other than the teacher, this mean
    # is larger by KL(teacher ‖ model).
    assert nll["untrained"].sum() > nll["teacher"].sum()


def clustered(generator: np.random.Generator, clusters: int, rows_each: int, spread: float) -> tuple[np.ndarray, list]:
    """Values around 1. All values of a cluster are shifted by the same random number."""
    base = np.repeat(generator.normal(0, spread, clusters), rows_each)
    names = [f"s{i}" for i in range(clusters) for _ in range(rows_each)]
    return 1 + base + generator.normal(0, 0.3, clusters * rows_each), names


def test_intervals_cover_as_often_as_they_say():
    """95% intervals of 400 simulated evaluations with 40 seeds of 4 rows each. Rows have different lengths."""
    generator = np.random.default_rng(0)
    inside, naive = 0, 0
    for _ in range(400):
        value, names = clustered(generator, 40, 4, 0.5)
        weight = generator.integers(5, 40, len(value))
        found = interval(value * weight, weight, names, 0)
        inside += found.low <= 1 <= found.high
        rows_alone = interval(value * weight, weight, [str(i) for i in range(len(value))], 0)
        naive += rows_alone.low <= 1 <= rows_alone.high
        assert found.low < found.mean < found.high
    print(f"coverage {inside / 400:.1%} with whole seeds, {naive / 400:.1%} with rows as if independent")
    assert 0.91 <= inside / 400 <= 0.98
    assert naive / 400 < 0.85, "the simulation is one where it matters"


def test_intervals_of_differences_are_paired():
    """The difficulty of a seed is the same for both models, and cancels out in the difference. The interval is narrow
    and still covers the difference.
    """
    generator = np.random.default_rng(1)
    inside, widths = 0, []
    for _ in range(200):
        value, names = clustered(generator, 30, 3, 1.0)
        other = value + 0.1 + generator.normal(0, 0.1, len(value))
        ones = np.ones(len(value))
        found = interval(other - value, ones, names, 0)
        inside += found.low <= 0.1 <= found.high
        alone = interval(value, ones, names, 0)
        widths.append((found.high - found.low, alone.high - alone.low))
    paired, single = np.mean(widths, 0)
    print(f"coverage {inside / 200:.1%}, width {paired:.3f} paired against {single:.3f}")
    assert 0.9 <= inside / 200 <= 0.985
    assert paired < single / 5


def test_interval_of_one_seed_has_no_width():
    found = interval(np.array([2.0, 4.0]), np.array([1.0, 2.0]), ["a", "a"], 0)
    assert found == Interval(2.0, 2.0, 2.0)


# The classifier


TOPICS = {
    "money": ["refund my payment", "the invoice is wrong", "charged twice for it", "a refund for the invoice"],
    "parcel": ["parcel is late", "where is the courier", "the delivery never came", "courier lost the parcel"],
}


@pytest.fixture(scope="module")
def sorted_texts(tmp_path_factory):
    """(curated corpus of texts that are easy to separate, with a teacher's probabilities; the recipe's section
    `train`).
    """
    from synthgen.curation import curate
    from synthgen.recipe import load_recipe
    from synthgen.records import Record, to_table

    folder = tmp_path_factory.mktemp("classifier")
    generator = np.random.default_rng(0)
    records = []
    for number in range(120):
        label = number % 2
        topic = list(TOPICS)[label]
        text = f"{generator.choice(TOPICS[topic])} {generator.choice(TOPICS[topic])} no. {number}"
        sure = float(generator.uniform(0.7, 0.99))
        records.append(
            Record(
                id=f"r{number:03d}",
                seed_id=f"s{number}",
                split="train" if number < 80 else "test",
                task="t",
                strategy="classify",
                prompt_version="v",
                prompt=[{"role": "user", "content": text}],
                completion=[{"role": "assistant", "content": topic}],
                teacher="t",
                label_probs=[sure, 1 - sure] if label == 0 else [1 - sure, sure],
            )
        )
    generated = folder / "generated"
    corpus.claim(generated, {}, "generate")
    for split in ("train", "test"):
        corpus.commit(generated, f"{split}-00000", {"data": to_table(r for r in records if r.split == split)})
    facts = {
        "description": "",
        "task": "t",
        "strategy": "classify",
        "prompt_version": "v",
        "labels": list(TOPICS),
        "teachers": {},
        "sources": [{"role": "seed", "source": "tests", "license": "CC0-1.0"}],
        "counts": {"rows": len(records)},
    }
    corpus.finish(generated, "generated", facts, ["train-00000", "test-00000"])
    recipe = {
        "task": "t",
        "strategy": "classify",
        "seeds": [{"path": "none.jsonl", "source": "tests", "license": "CC0-1.0"}],
        "teacher": {"model": "none", "license": "Apache-2.0"},
        "generate": {"labels": list(TOPICS)},
        "logits": None,
        "curate": {"answer": False, "length": None},
        "train": {
            "student": {"kind": "classifier", "buckets": 512, "hidden_size": 8, "dropout": 0.1},
            "num_train_epochs": 15,
            "batch_size": 16,
            "learning_rate": 0.02,
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    loaded_recipe = load_recipe(folder / "recipe.yaml")
    curate(loaded_recipe, folder)
    return loaded_recipe, folder


def test_a_classifier_agrees_with_its_teacher_on_texts_it_has_not_seen(sorted_texts):
    recipe, run = sorted_texts
    student = Classifier.load(train(recipe, run).folder)
    held_out = [r for r, _ in rows(run / "curated", "test")]
    probs = student.predict([last_question(r.prompt) for r in held_out])
    teacher = np.array([r.label_probs for r in held_out])
    assert (probs.argmax(-1) == teacher.argmax(-1)).all()
    assert np.allclose(probs.sum(-1), 1)
    soft = np.abs(probs - teacher).mean()
    hard = np.abs(
        Classifier.load(run / "student" / "baseline").predict([last_question(r.prompt) for r in held_out]) - teacher
    )
    print(f"mean distance from the teacher's probabilities: distilled {soft:.3f}, hard labels {hard.mean():.3f}")
    assert soft < hard.mean(), "soft labels teach how sure to be"


def test_labels_in_another_order_are_compared_by_name(sorted_texts, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.evaluation.classifiers.has_local_teacher", lambda recipe: False)  # its name is "none"
    recipe, run = sorted_texts
    folder = train(recipe, run).folder
    student = Classifier.load(folder)
    turned = list(range(len(student.labels)))[::-1]
    other = replace(
        student,
        labels=[student.labels[n] for n in turned],
        out=np.ascontiguousarray(student.out[:, turned]),
        out_bias=np.ascontiguousarray(student.out_bias[turned]),
    )
    other.save(tmp_path)
    training = SimpleNamespace(kind="classifier", learned_from="")
    found = [
        evaluate_mlp(Subject(recipe, training, run / "curated", place, None, UI(quiet=True)))
        for place in (folder, tmp_path)
    ]
    assert found[0].table["distilled"].keys() == found[1].table["distilled"].keys()
    for name in ("agreement", "accuracy", "kl"):
        first, second = (one.table["distilled"].get(name) for one in found)
        assert first == second, name
    assert found[1].matrix.labels == other.labels == student.labels[::-1]
    replace(other, labels=[f"topic {n}" for n in turned]).save(tmp_path)
    with pytest.raises(CorpusError, match=r"and the student was trained on topic \d, topic"):
        evaluate_mlp(Subject(recipe, training, run / "curated", tmp_path, None, UI(quiet=True)))


def test_a_student_that_gives_one_label_is_not_known_to_equal_the_majority_class(sorted_texts, tmp_path, monkeypatch):
    """On these texts it equals the majority class exactly. Other texts could show a difference."""
    monkeypatch.setattr("distill.evaluation.classifiers.has_local_teacher", lambda recipe: False)
    recipe, run = sorted_texts
    held_out = [r for r, _ in rows(run / "curated", "test")]
    most = np.bincount([int(np.argmax(r.label_probs)) for r in held_out]).argmax()
    count = len(TOPICS)
    nothing = [np.zeros(shape, np.float32) for shape in ((8, 2), (2,), (2, count))]
    Classifier(list(TOPICS), *nothing, np.eye(count, dtype=np.float32)[most]).save(tmp_path)
    training = SimpleNamespace(kind="classifier", learned_from="")
    found = evaluate_mlp(Subject(recipe, training, run / "curated", tmp_path, None, UI(quiet=True)))
    [against] = [one.difference for one in found.comparisons]
    assert against.low < against.mean == 0.0 < against.high


def test_numpy_and_torch_predict_the_same(sorted_texts):
    """The NumPy classifier is compared with the torch modules that it was trained with."""
    recipe, run = sorted_texts
    student = Classifier.load(train(recipe, run).folder)
    texts = [text for some in TOPICS.values() for text in some] + ["", "zzz ÄÖÜ 123", "refund " * 50]
    bags = [features(text, len(student.embed)) for text in texts]
    embed = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(student.embed), mode="sum")
    hidden = embed(
        torch.from_numpy(np.concatenate([ids for ids, _ in bags])),
        torch.tensor([0, *np.cumsum([len(ids) for ids, _ in bags])[:-1]]),
        per_sample_weights=torch.from_numpy(np.concatenate([weights for _, weights in bags])),
    )
    hidden = torch.relu(hidden + torch.from_numpy(student.bias))
    probs = (hidden @ torch.from_numpy(student.out) + torch.from_numpy(student.out_bias)).softmax(-1)
    assert np.abs(probs.numpy() - student.predict(texts)).max() < 1e-6


def test_features_have_unit_length_and_stay_in_their_buckets():
    for text in ("refund my payment", "a a a a", "ÄÖÜ, 123!", "a", "?a?"):
        ids, weights = features(text, 97)
        assert ids.max() < 97
        assert len(set(ids.tolist())) == len(ids)
        assert np.linalg.norm(weights) == pytest.approx(1, rel=1e-5)
    assert len(features("", 97)[0]) == 0


def test_a_classifier_whose_loss_is_not_a_number_is_not_saved(sorted_texts, tmp_path):
    recipe, run = sorted_texts
    section = recipe.train.model_copy(update={"learning_rate": 1e30, "baseline": False})
    with pytest.raises(UserError, match=r"the loss of step \d+ is (?:nan|inf)"):
        train(recipe.model_copy(update={"train": section}), run, tmp_path / "student")
    assert not (tmp_path / "student" / "model.safetensors").exists()


def test_rows_that_curation_rejected_teach_a_classifier_their_probabilities_alone(tmp_path):
    """The check of answers rejects rows, which changes only the cross-entropy of the student."""
    # A teacher with random weights writes single bytes, so only labels of one byte have enough probability.
    kinds = {"generate": {"labels": ["K", "l"]}, "logits": None, "strategy": "classify"}
    student = {"kind": "classifier", "buckets": 64, "hidden_size": 4, "dropout": 0.0}
    section = {"student": student, "batch_size": 8, "max_steps": 4, "kd_weight": 0.5, "baseline": False}
    teacher, found = small_teacher(tmp_path / "teacher"), {}
    for name, rejects in (("kept", False), ("rejected", True)):
        task = small_task(tmp_path / name, teacher, seeds=24, curate={"answer": rejects}, train=section, **kinds)
        seeds = task.parent / "seeds.jsonl"
        seeds.write_text(seeds.read_text().replace('"a"}', '"K"}').replace('"b"}', '"l"}'))
        recipe, run = load_recipe(task), tmp_path / f"run-{name}"
        generate(recipe, run)
        curate(recipe, run)
        found[name] = train(recipe, run).training
    kept, rejected = found["kept"], found["rejected"]
    assert rejected.rows == kept.rows == kept.rows_kept > rejected.rows_kept > 0
    first, other = kept.metrics["distilled"][0], rejected.metrics["distilled"][0]
    assert first["distillation"] == other["distillation"]
    assert first["loss"] != other["loss"]
