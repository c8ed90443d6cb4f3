"""The counts of a curated corpus: tokens, and the funnel, which says how many rows each rule dropped."""

from __future__ import annotations

from support.corpora import corpus_of, curating, parts, row

import synthgen
from synthgen import corpus
from synthgen.display import show
from synthgen.tally import Step, funnel


def test_tokens_are_counted_where_they_are_known(tmp_path):
    """A row of a data set has no tokens. A server counts the tokens of the text before an edit, so this count is not
    used for an edited row.
    """
    more = {"usage": {"completion_tokens": 9}}
    none = [row("three", 0, **more), row("four", 1, usage=None)]
    for name, rows, expected in (
        ("ids", [row("one", 0, token_ids=[1, 2, 3]), row("two", 1, token_ids=[4, 5])], {"tokens_kept": 5}),
        ("counted", [row("three", 0, **more)], {"tokens_kept": 9}),
        ("some", none, {"tokens_kept": 9, "rows_without_tokens": 1}),
        ("unknown", none[1:], {}),
        ("edited", [row("a  ", 0, **more), row("b", 1, **more)], {"tokens_kept": 9, "rows_without_tokens": 1}),
        ("all edited", [row("a  ", 0, token_ids=[1], **more)], {}),
    ):
        run = corpus_of(tmp_path / name, rows)
        done = synthgen.curate(curating(white_space=True, duplicates=False), run)
        found = {key: count for key, count in done.counts.items() if "tokens" in key and key != "tokens_rejected"}
        assert found == expected, name
        assert ("tokens" in done.text().removeprefix(str(run))) is bool(expected)


def filtered(tmp_path):
    """A run with 12 rows. The check `length` drops four rows. One of the dropped rows belongs to a group, and another
    dropped row is also a refusal.
    """
    long, refusal = "word other " * 600, "I’m sorry, but I cannot fulfill this request."
    texts = ["one", "one", "two", long, refusal, "three", "four", "", "six"]
    rows = [
        row(text, number, prompt=[{"role": "user", "content": str(number > 1)}]) for number, text in enumerate(texts)
    ]
    both = row(f"{refusal} {long}", 9)
    grouped = [row("left", 10, group_id="g"), row("", 11, group_id="g")]
    return corpus_of(tmp_path / "run", [*rows, both, *grouped])


def test_the_funnel_names_what_each_rule_dropped_first(tmp_path):
    run = filtered(tmp_path)
    done = synthgen.curate(curating(answer=False, repetition=False), run)
    kept, gone = parts(run)
    first = [record.verdicts[0]["check"] for record in gone.values()]
    steps = funnel(corpus.manifest(run / "curated"))
    assert steps == [
        Step("length", 4, 8),
        Step("refusal", 1, 7),
        Step("truncated", 0, 7),
        Step("split_copies", 0, 7),
        Step("duplicates", 1, 6),
        Step("group", 1, 5),
    ]
    assert {step.rule: step.dropped for step in steps if step.dropped} == {name: first.count(name) for name in first}
    assert steps[-1].left == len(kept) == done.counts["kept"]
    shown = show(run, 1, rejected=True)
    line = "in order: 12 rows, length dropped 4, refusal 1, duplicates 1, group 1, 5 kept"
    assert line in shown.text()
    assert line in done.text()
    assert shown.to_dict()["funnel"][0] == {"rule": "length", "dropped": 4, "left": 8}

    assert done.funnel == shown.funnel
    page = synthgen.report(run).path.read_text()
    assert '<tr><td>length</td><td class="n">4</td><td class="n">8</td></tr>' in page
    assert "left of 12" in page


def test_a_corpus_without_a_funnel(tmp_path):
    """Neither a generated corpus nor a corpus that an older version curated has a funnel."""
    run = filtered(tmp_path)
    generated = corpus.manifest(run / "generated")
    assert funnel(generated) == []
    synthgen.curate(curating(), run)
    found = corpus.manifest(run / "curated")
    del found["dropped_by"]
    assert funnel(found) == []
    assert "in order" not in show(run / "generated", 1).text()
