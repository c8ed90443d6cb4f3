"""`synthgen.open` gives rows as data frames and distributions as arrays after every stage. A mistake raises an error of
one line.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.reading import reason

import synthgen
from synthgen import corpus, logits
from synthgen.errors import CorpusError, UserError
from synthgen.notebook import _distribution
from synthgen.records import Record, to_table


@pytest.fixture
def run(tmp_path, finished) -> Path:
    return shutil.copytree(finished.run, tmp_path / "run")


def records(run: Path, part: str) -> list[Record]:
    stage, name = ("generated", "data") if part == "generated" else ("curated", {"kept": "data"}.get(part, part))
    return [record for _, some in corpus.records(run / stage, name) for record in some]


@pytest.mark.parametrize("part", ["generated", "kept", "rejected"])
def test_rows_are_those_of_the_corpus(run, part):
    frame, expected = getattr(synthgen.open(run), part), records(run, part)
    assert len(frame) == len(expected) > 0
    assert list(frame["id"]) == [r.id for r in expected]
    assert list(frame["completion_text"]) == [r.completion[-1]["content"] for r in expected]
    assert list(frame["prompt_text"]) == [r.prompt[-1]["content"] for r in expected]
    assert [list(t) for t in frame["token_ids"]] == [list(r.token_ids) for r in expected]
    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes)


def test_rejected_rows_say_why(run):
    frame = synthgen.open(run).rejected
    expected = records(run, "rejected")
    assert list(frame["rejected_by"]) == [", ".join(v["check"] for v in r.verdicts) for r in expected]
    assert list(frame["reason"]) == ["; ".join(v["reason"] for v in r.verdicts) for r in expected]
    assert set(frame["rejected_by"]) == {"duplicates"}
    assert "reason" not in synthgen.open(run).kept


def test_columns_and_a_split_are_chosen(run, monkeypatch):
    opened = synthgen.open(run)
    read = []
    real = corpus.scan
    monkeypatch.setattr(corpus, "scan", lambda path, columns, size: read.append(columns) or real(path, columns, size))
    frame = opened.rows("kept", ["prompt_text", "id"], "test")
    assert list(frame.columns) == ["prompt_text", "id"]
    assert {tuple(columns) for columns in read} == {("prompt", "id")}, "no other column is read"
    assert list(frame["id"]) == [r.id for r in records(run, "kept") if r.split == "test"]


def test_columns_of_the_users_own_and_several_reasons(tmp_path):
    """A user's column keeps its values, even if synthgen uses the same name for a derived column."""
    reasons = [
        reason("length", "too short", rule="min_words"),
        reason("language", "not English", rule="eldc"),
    ]
    record = Record("a", "s", "train", None, None, None, [], [], None, verdicts=reasons)
    record.own = {"prompt_text": "mine"}
    import pyarrow as pa

    from synthgen.records import schema_with

    table = to_table([record], schema_with(pa.schema([pa.field("prompt_text", pa.string())])))
    corpus.claim(tmp_path / "curated", {}, "test")
    corpus.commit(tmp_path / "curated", "train-00000", {"data": to_table([]), "rejected": table})
    frame = synthgen.open(tmp_path).rejected
    assert frame["prompt_text"].tolist() == ["mine"]
    assert frame["completion_text"].isna().all(), "there is no message"
    assert frame["rejected_by"].tolist() == ["length, language"]
    assert frame["reason"].tolist() == ["too short; not English"]


def test_failures_have_their_reasons(run):
    assert list(synthgen.open(run).failures.columns) == ["id", "seed_id", "split", "kind", "reason"]


def test_a_distribution_is_what_is_stored(run):
    opened = synthgen.open(run)
    for part in ("kept", "rejected"):
        record = records(run, part)[0]
        found = opened.distribution(record.id)
        [path] = [p for p in (run / "generated" / "logits").rglob("*.parquet") if record.id in logits.read(p).ids]
        shard = logits.read(path)
        target = shard.target(shard.ids.index(record.id))
        assert found.token_ids.tolist() == list(record.token_ids)
        assert found.ids.shape == found.probabilities.shape == (len(found), target.uniques.max())
        assert found.counts.sum(-1).tolist() == [found.draws] * len(found) == [shard.meta["draws"]] * len(found)
        begin = 0
        for t, unique in enumerate(target.uniques):
            assert found.ids[t, :unique].tolist() == target.ids[begin : begin + unique].tolist()
            assert found.counts[t, :unique].tolist() == target.counts[begin : begin + unique].tolist()
            assert (found.ids[t, unique:] == -1).all()
            begin += unique
        np.testing.assert_allclose(found.probabilities.sum(-1), 1)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_top_k_is_given_at_the_temperature_it_was_stored_for(temperature):
    generator = np.random.default_rng(0)
    z = generator.normal(size=(5, 40)) * 3
    exact = np.exp(z / temperature)
    exact /= exact.sum(-1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(-1, keepdims=True))
    order = np.argsort(-logp, axis=-1)[:, :8]
    top = np.take_along_axis(logp, order, -1)
    log_z = np.log(np.exp(logp / temperature).sum(-1))
    tail = np.log(1 - np.exp(top / temperature - log_z[:, None]).sum(-1))
    target = logits.TopK(order.astype(np.int32), top.astype(np.float32), tail, log_z)
    meta = {"kind": "topk", "k": 8, "temperature": temperature, "teacher": "t@1"}
    found = _distribution(target, meta, np.arange(5))
    np.testing.assert_allclose(found.probabilities, np.take_along_axis(exact, order, -1), rtol=1e-4)
    np.testing.assert_allclose(found.probabilities.sum(-1) + found.tail, 1, rtol=1e-4)
    np.testing.assert_allclose(np.exp(found.log_probabilities), found.probabilities)


def test_a_distribution_of_other_tokens_is_refused(run):
    """The tokens were changed after the distribution was stored, so the distribution is refused."""
    record = records(run, "kept")[0]
    for stage, part in (("generated", "data"), ("curated", "data")):
        for path in (run / stage / part).glob("*.parquet"):
            some = [r for _, rs in corpus.records(run / stage, part) for r in rs if path.stem.startswith(str(r.split))]
            if record.id in [r.id for r in some]:
                import pyarrow.parquet as pq

                for r in some:
                    r.token_ids = [*list(r.token_ids)[:-1], 7]
                pq.write_table(to_table(some), path)
    with pytest.raises(CorpusError, match="does not belong to record"):
        synthgen.open(run).distribution(record.id)


def test_results_of_each_stage(run):
    opened = synthgen.open(run)
    assert opened.evaluation.table["distilled"]["kl"].mean > 0
    assert opened.evaluation.frame().loc["distilled", "kl_low"] < opened.evaluation.frame().loc["distilled", "kl_high"]
    assert opened.student.path == run / "student"
    assert opened.student.training.steps == json.loads((run / "student" / "training.json").read_text())["steps"]
    assert opened.audit["status"] == "ALLOW"
    for text in (repr(opened), opened._repr_html_()):
        assert "rows 48" in text
        assert "ALLOW" in text
        assert "KL to the teacher" in text
    for stage in ("student", "audit", "curated"):
        shutil.rmtree(run / stage)
    early = synthgen.open(run)
    assert (early.student, early.evaluation, early.audit) == (None, None, None)
    assert len(early.generated) == 48
    with pytest.raises(UserError, match="is not curated, so it has no part 'kept'") as caught:
        _ = early.kept
    assert "synthgen curate" in caught.value.hint
    (run / "generated" / "manifest.json").unlink()
    assert "not finished: " in repr(synthgen.open(run))
    assert len(synthgen.open(run).generated) == 48


def test_a_corpus_folder_is_opened_like_its_run(run):
    curated, generated = synthgen.open(run / "curated"), synthgen.open(run / "generated")
    assert list(curated.kept["id"]) == list(synthgen.open(run).kept["id"])
    assert len(generated.generated) == 48
    assert len(curated.distribution(curated.kept["id"].iloc[0])) > 0
    assert curated.student.path == run / "student"


def test_names_are_text_in_the_summary(run):
    audit = json.loads((run / "audit" / "report.json").read_text())
    audit |= {"status": "<b>", "intent": {**audit["intent"], "use": "</table>"}}
    (run / "audit" / "report.json").write_text(json.dumps(audit))
    assert "<b>" not in synthgen.open(run)._repr_html_()


def test_mistakes_are_one_line(run, tmp_path):
    opened = synthgen.open(run)
    (tmp_path / "empty").mkdir()
    for act, says in (
        (lambda: synthgen.open(tmp_path / "nowhere"), "does not exist"),
        (lambda: synthgen.open(tmp_path / "empty"), "there is no corpus"),
        (lambda: opened.rows("kept", ["promt"]), "no column 'promt'; did you mean 'prompt'?"),
        (lambda: opened.rows("rejects"), "no part 'rejects'; did you mean 'rejected'?"),
        (lambda: opened.distribution("x"), "no distribution of a row 'x'"),
        (lambda: opened.distribution("x", "teachers"), "no distributions of 'teachers'; did you mean 'teacher'?"),
    ):
        with pytest.raises(UserError) as caught:
            act()
        assert says in caught.value.message
        assert "\n" not in caught.value.message
        assert caught.value.hint
