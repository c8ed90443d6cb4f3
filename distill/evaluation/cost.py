"""Speed and peak memory of one model, in a process of its own: `measure(job)` starts it, `main` is it.

Peak memory is the process's peak resident set, so each model needs its own process. The child ends with its
parent: it watches its standard input, which the kernel closes when the parent dies.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.errors import SynthgenError

_ALONE = 8  # requests that are also answered one at a time, for their latency


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a child process and return what it measured.

    Jobs: {"what": "sample", "teacher": section, "requests": [...]}, {"what": "seq2seq", ...},
    {"what": "classify", ...}, {"what": "student", "kind": kind, "folder": path, "texts": [...]},
    {"what": "embed", "teacher": section, "texts": [...]} or {"what": "exported", ...}, which
    distill.exporting.parity describes. Raises SynthgenError when the child fails.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "distill.evaluation.cost"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdin.write(json.dumps(job) + "\n")
        child.stdin.flush()
        output = child.stdout.read()
        errors = child.stderr.read()
        if child.wait() != 0 or not output:
            raise SynthgenError(
                f"measuring failed: {errors.strip().splitlines()[-1] if errors.strip() else child.returncode}"
            )
        return dict(json.loads(output.splitlines()[-1]))
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                pipe.close()


def main() -> None:
    """Read one job from standard input, print one JSON line."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    result = {
        "sample": _local,
        "seq2seq": _local,
        "classify": _local,
        "student": _student,
        "embed": _embed,
        "exported": _exported,
    }[job["what"]](job)
    result["peak_rss_bytes"] = peak_rss()
    sys.stdout.write(json.dumps(result) + "\n")


def peak_rss() -> int:
    """Largest resident set of this process so far, in bytes.

    Not `ru_maxrss` where the kernel gives the figure itself: that one survives exec, so the child of a large
    parent would report its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def energy(folder: Path = Path("/sys/class/powercap")) -> float | None:
    """Joules that the processor packages have used so far, where the kernel counts them (RAPL) and lets us read."""
    try:
        counters = [path / "energy_uj" for path in sorted(folder.glob("intel-rapl:*")) if path.name.count(":") == 1]
        return sum(int(path.read_text()) for path in counters) / 1e6 if counters else None
    except OSError:
        return None


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the parent closes its end, or dies
    os._exit(1)


def _local(job: dict[str, Any]) -> dict[str, Any]:
    from synthgen.requests import Request
    from synthgen.tables.engines import TeacherSection
    from synthgen.teachers import open_teacher

    section = TeacherSection.model_validate(job["teacher"])
    model: Any
    if job["what"] == "seq2seq":
        from distill.students.seq2seq import Seq2SeqModel
        from synthgen.lm.load import pick_device

        model = Seq2SeqModel.open(section.model, section.batch_size, pick_device(section.device))
    else:
        model = open_teacher(section)
    requests = [Request(**{**r, "labels": tuple(r.get("labels", ()))}) for r in job["requests"]]
    act = model.classify if job["what"] == "classify" else lambda some: model.sample(some, None)
    act(requests[:2])  # warm
    joules, began = energy(), time.perf_counter()
    replies = act(requests)
    seconds = time.perf_counter() - began
    spent = None if joules is None else (energy() or joules) - joules
    alone = []
    for request in requests[:_ALONE]:
        began = time.perf_counter()
        act([request])
        alone.append(1e3 * (time.perf_counter() - began))
    tokens = sum(len(r.token_ids) for r in replies)
    return {
        "texts": [r.text for r in replies],
        "tokens_per_second": tokens / seconds,
        "rows_per_second": len(replies) / seconds,
        "answer_ms": {"p50": float(np.quantile(alone, 0.5)), "p95": float(np.quantile(alone, 0.95))},
        **({"joules_per_token": spent / tokens} if spent and tokens else {}),
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.model.parameters()),
    }


def _student(job: dict[str, Any]) -> dict[str, Any]:
    from distill.students.classifier import open_classifier

    classifier = open_classifier(job["kind"], job["folder"])
    texts = job["texts"]
    classifier.predict(texts[:8])
    runs = 5
    began = time.perf_counter()
    for _ in range(runs):
        classifier.predict(texts)
    seconds = (time.perf_counter() - began) / runs
    return {
        "rows_per_second": len(texts) / seconds,
        "parameters": classifier.parameters,
        "weights_bytes": (Path(job["folder"]) / "model.safetensors").stat().st_size,
    }


def _embed(job: dict[str, Any]) -> dict[str, Any]:
    from synthgen.tables.engines import TeacherSection
    from synthgen.teachers.embedding import EmbeddingModel

    section = TeacherSection.model_validate(job["teacher"])
    model = EmbeddingModel.open(section).model
    model.vectors(job["texts"][:8], section.batch_size)
    runs = 3
    began = time.perf_counter()
    for _ in range(runs):
        model.vectors(job["texts"], section.batch_size)
    seconds = (time.perf_counter() - began) / runs
    return {
        "rows_per_second": len(job["texts"]) / seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
    }


def _exported(job: dict[str, Any]) -> dict[str, Any]:
    from distill.exporting.parity import timed

    return timed(job)


if __name__ == "__main__":
    main()
