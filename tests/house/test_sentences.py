"""benchmarks/sentences.py finds the prose of each kind of file with its line, and nothing else."""

from __future__ import annotations

import re
import sys

import pytest
from support.places import REPOSITORY

CODE = '''"""A module has its first sentence. It has a
second one, e.g. This one goes on.

    code_that_is(indented) must never be read as prose here

- An item is a paragraph alone
- and so is the next item
"""

LIMIT = 3
"""An attribute is documented by a string."""
TEXT = "A plain string is not prose at all."


# A comment goes over
# two lines of the file.
x = 1  # a comment beside some code
# noqa: this one is for a tool
def f(name):
    # A comment in a function. `name` is quoted first.
    ui.note(f"{name} has {x} rows and is complete")
    click.option("--x", help="The help of an option.")
    log("This string goes to nobody at all.")
    raise Stop(f"the file '{name}' is not there", "give its name once more")
'''
CODE_SENTENCES = [
    (1, "A module has its first sentence."),
    (1, "It has a second one, e.g. This one goes on."),
    (6, "An item is a paragraph alone"),
    (7, "and so is the next item"),
    (11, "An attribute is documented by a string."),
    (15, "A comment goes over two lines of the file."),
    (17, "a comment beside some code"),
    (20, "A comment in a function."),
    (20, "`name` is quoted first."),
    (21, "… has … rows and is complete"),
    (22, "The help of an option."),
    (24, "give its name once more"),
    (24, "the file '…' is not there"),
]
PAGE = """---
title: front matter is not a sentence
---
# A heading is not a sentence either

The first sentence is on
line six. The second one (in brackets, too.) "Ends here."
Too short.

| a table is not a sentence | at all |

```
a block of code is not a sentence
```

    nor is a block that is indented

1. A list has items like this,
    and they go on.
"""
PAGE_SENTENCES = [
    (6, "The first sentence is on line six."),
    (7, "The second one (in brackets, too.)"),
    (18, "A list has items like this, and they go on."),
]
TEMPLATE = """<style>p { this is not prose at all }</style>
{# nor is a remark in here #}{% if rows %}
<p>There are {{ rows |
num }} rows in <b>this</b> corpus</p><p>Another paragraph stands beside it.</p>
{% endif %}
"""
TEMPLATE_SENTENCES = [(3, "There are … rows in this corpus"), (4, "Another paragraph stands beside it.")]


@pytest.fixture(scope="module")
def sentences():
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import sentences

    yield sentences
    sys.path.remove(str(REPOSITORY / "benchmarks"))
    del sys.modules["sentences"]


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("synthgen/a.py", CODE, CODE_SENTENCES),
        ("docs/page.md", PAGE, PAGE_SENTENCES),
        ("synthgen/templates/card.j2", TEMPLATE, TEMPLATE_SENTENCES),
        (
            "prompts/x/recipe.yaml",
            "# What this recipe is for.\nname: this is not a comment\n",
            [(1, "What this recipe is for.")],
        ),
        ("prompts/x/user.j2", "A prompt to a model is left out.", []),
        ("runs/README.md", "A file of another folder is left out.", []),
    ],
)
def test_prose_is_found_on_its_line(sentences, tmp_path, path, text, expected):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert [(line, sentence) for _, line, sentence in sentences.sentences(tmp_path)] == expected


def test_a_seed_draws_the_same_list_and_no_sentence_twice(sentences, tmp_path, capsys):
    lines = [f"This is the sentence of number {word}." for word in "abcdefghijklmnopqrstuvwxyz"]
    (tmp_path / "README.md").write_text("\n\n".join([" ".join(lines), " ".join(lines)]))

    def drawn(*arguments: str) -> list[str]:
        sentences.main([*arguments], tmp_path)
        return capsys.readouterr().out.splitlines()

    first = drawn("-n", "10", "--seed", "7")
    assert first == drawn("-n", "10", "--seed", "7") != drawn("-n", "10", "--seed", "8")
    assert first[0] == "10 of 26 sentences, seed 7"
    assert all(
        re.fullmatch(r"\d+\. \[README\.md:1\] This is the sentence of number [a-z]\.", line) for line in first[1:]
    )
    assert len(set(first[1:])) == 10
    assert len(drawn()) == 27


def test_all_parts_of_the_project_are_read(sentences):
    parts = {path.relative_to(REPOSITORY).parts[0] for path in sentences.files(REPOSITORY)}
    assert parts >= {
        "README.md",
        "CHANGELOG.md",
        "docs",
        "prompts",
        "data",
        "synthgen",
        "distill",
        "tests",
        "benchmarks",
    }
    read = {path.relative_to(REPOSITORY).as_posix() for path in sentences.files(REPOSITORY)}
    assert {"prompts/README.md", "data/README.md", "synthgen/templates/model_card.md.j2"} <= read
