"""Success means rows: a run without rows exits with 1, says why, trains nothing and does not pass its audit."""

from __future__ import annotations

import json
import re
import signal

import pytest
from click.testing import CliRunner
from support.commands import Done
from support.corpora import corpus_of, curating, row
from support.serving import KEY, Serving, write_recipe
from support.small import small_task

import distill
import synthgen
from synthgen.cli import main
from synthgen.errors import GateDenied
from synthgen.tally import causes, tally


@pytest.fixture(scope="module")
def serving():
    running = Serving(tokens=3)
    yield running
    running.stop()


@pytest.fixture
def server(serving):
    """A server without faults."""
    serving.set(faults={}, script=[], reset=True)
    return serving


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    """A cache and a key of the test's own. Commands run in this process, and their signal handlers are removed."""
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def command(*parts: object) -> Done:
    """Runs a command of `synthgen` in this process."""
    result = CliRunner().invoke(main, [str(part) for part in parts])
    return Done(result.exit_code, result.stdout, result.stderr)


def refused(done: Done, *words: str) -> None:
    """Asserts that a command exits with 1, and that its one line of error contains all `words`."""
    assert done.code == 1, done
    [error] = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    for word in words:
        assert word in error, (word, error)
    assert re.search(r"^  → \S", done.err, re.MULTILINE), done


def last(done: Done) -> str:
    return done.out.splitlines()[-1]


def test_every_request_failed(tmp_path, server):
    server.set(faults={"400": 1.0})
    path, run = write_recipe(tmp_path / "task", server.url, seeds=6), tmp_path / "run"
    done = command("generate", path, "-o", run)
    refused(done, "has no rows", "all 6 requests failed", "bad_request")
    assert last(done) == "kept 0, rejected 0, failed 6"
    assert "Next:" not in done.err, "there is no next step"
    refused(command("generate", path, "-o", run), "all 6 requests failed")
    refused(command("curate", run), "all 6 requests failed", "bad_request")
    done = command("audit", run)
    refused(done, "all 6 requests failed")
    assert "UNKNOWN" in done.out.splitlines()[0]
    report = json.loads((run / "audit" / "report.json").read_text())
    assert (report["status"], report["passed"]) == ("UNKNOWN", False)
    shown = command("show", run, "--failures", "-n", "1")
    assert re.search(r"^failed by: bad_request 6\n  bad_request: .+ \(6\)$", shown.out, re.MULTILINE), shown
    assert last(shown) == "kept 0, rejected 0, failed 6"
    server.set(faults={})
    done = command("generate", path, "-o", run, "--retry-failed")
    assert (done.code, last(done)) == (0, "kept 6, rejected 0, failed 0")


def test_run_ends_all_stages_but_trains_nothing(tmp_path, server):
    server.set(faults={"400": 1.0})
    path, run = write_recipe(tmp_path / "task", server.url, seeds=4), tmp_path / "run"
    refused(command("run", path, "-o", run), "has no rows", "all 4 requests failed")
    assert json.loads((run / "audit" / "report.json").read_text())["status"] == "UNKNOWN"
    assert (run / "report.html").exists()
    assert not (run / "student").exists()


def test_more_than_half_failed(tmp_path, server):
    """The command succeeds, and warns. The reasons differ only in the number of the question."""
    server.set(script=[["hard", ["400"]]])
    rows = [{"id": f"q{n}", "question": f"{'hard' if n else 'easy'} {n}"} for n in range(4)]
    path, run = write_recipe(tmp_path / "task", server.url, seeds=rows), tmp_path / "run"
    done = command("run", path, "-o", run)
    assert done.code == 0, done
    assert "Warning: 3 requests failed, and only 1 rows were made" in done.out
    assert re.search(r"^failed by bad_request: .* \(3\)$", done.out, re.MULTILINE), done
    assert last(done) == "kept 1, rejected 0, failed 3"
    assert "Warning" in command("curate", run).out


def test_tokens_of_api_rows_are_counted_from_usage(tmp_path, server):
    path, run = write_recipe(tmp_path / "task", server.url, seeds=4), tmp_path / "run"
    result = json.loads(command("run", path, "-o", run, "--json").out)
    assert result["outcome"]["kept"] == 4
    usage = [r.usage["completion_tokens"] for _, rows in synthgen.corpus.records(run / "curated") for r in rows]
    assert synthgen.corpus.manifest(run / "curated")["counts"]["tokens_kept"] == sum(usage) > 0


def test_rows_with_cut_prompts_are_counted(tmp_path):
    """The score `prompt_was_cut` is the number of tokens that the server counted, divided by the number of words of the
    prompt.
    """
    scores = [{"name": "prompt_was_cut", "value": 0.7}, {"name": "label_mass", "value": 1.0}]
    run = corpus_of(tmp_path / "run", [row(f"a{n}", n, scores=scores[n % 2 :]) for n in range(5)])
    assert tally(run / "generated").cut_prompts == 3
    done = command("show", run, "-n", "0")
    assert "Warning: for 3 rows, the server seems to have left out a part of the prompt" in done.out


NOTHING = {"length": {"min_words": 5}, "duplicates": False}


def test_every_row_was_rejected(tmp_path):
    run = corpus_of(tmp_path / "run", [row("two words", n) for n in range(4)])
    recipe = curating(**NOTHING)
    (run / "recipe.yaml").write_text(synthgen.recipe.dump_recipe(recipe))
    done = command("curate", run)
    refused(done, "has no rows", "all 4 rows were rejected", "length (4)")
    assert last(done) == "kept 0, rejected 4, failed 0"
    refused(command("curate", run), "all 4 rows were rejected")
    assert not synthgen.audit(recipe, run).passed
    report = synthgen.audit(recipe, run)
    assert (report.status, report.audits["rows"].status) == ("UNKNOWN", "UNKNOWN")
    assert "all 4 rows were rejected" in report.text()
    assert "all 4 rows were rejected" in (run / "audit" / "report.md").read_text()


def test_nothing_is_trained_on_a_corpus_without_kept_rows(tmp_path):
    """Nothing is trained even with --override-audit, and the distributions of the rejected rows are not used."""
    run = corpus_of(tmp_path / "run", [row("two words", n) for n in range(4)])
    recipe = synthgen.load_recipe(small_task(tmp_path / "task", tmp_path / "no-teacher", seeds=1))
    synthgen.curate(curating(**NOTHING), run)
    with pytest.raises(GateDenied, match="all 4 rows were rejected"):
        distill.train(recipe, run, override_audit=True)
    assert not list((run / "student").rglob("*.safetensors"))


def test_reasons_that_differ_only_in_numbers_count_together(tmp_path):
    import pyarrow as pa

    from synthgen import corpus
    from synthgen.records import FAILURE_SCHEMA, to_table

    folder = tmp_path / "generated"
    corpus.claim(folder, {}, "test")
    reasons = ["status 500 in request r1", "status 502 in request r2", "no text", "status 500 in request r3"]
    kinds = ["server", "server", "empty", "timeout"]
    failures = [
        {"id": f"{n}", "seed_id": "s", "split": "train", "kind": kind, "reason": reason}
        for n, (kind, reason) in enumerate(zip(kinds, reasons, strict=True))
    ]
    tables = {"data": to_table([]), "failures": pa.Table.from_pylist(failures, schema=FAILURE_SCHEMA)}
    corpus.commit(folder, "train-00000", tables)
    found = causes(folder)
    assert [(cause.kind, cause.count) for cause in found] == [("server", 2), ("empty", 1), ("timeout", 1)]
    assert found[0].reason == reasons[0]
    outcome = tally(folder)  # the corpus is unfinished
    assert (outcome.kept, outcome.rejected, outcome.failed) == (0, 0, 4)
    shown = synthgen.show(tmp_path, failures=True, n=1)
    assert (shown.failed_by, len(shown.failures)) == ({"server": 2, "empty": 1, "timeout": 1}, 1)
    with pytest.raises(
        GateDenied, match=r"all 4 requests failed, most often by server: status 500 in request r1 \(2\)"
    ):
        outcome.check(tmp_path)
