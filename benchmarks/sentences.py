"""Draws random sentences from all prose of the project. A reader then marks each sentence that needed a second reading.

    python benchmarks/sentences.py [-n 200] [--seed 0]

Prose is:

- README files, docs/*.md and the change log
- docstrings, strings that document an attribute, and comments in synthgen/, distill/, tests/, benchmarks/ and docs/
- help texts of commands, which are docstrings or `help=` strings
- messages and hints of exceptions and notes
- the text of synthgen/templates
- comments in recipes, data files, pyproject.toml and the Makefile

Code blocks, tables, headings, directives for tools, and prompts for models are left out. A sentence has at least four
words. A sentence that occurs twice counts once. Values in a message are printed as "…". With the same seed and the same
files, the list is the same.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
CODE = ("synthgen", "distill", "tests", "benchmarks", "docs")
WORDS = 4
NOTES = ("note", "warn", "done", "fail", "echo", "secho", "missing_extra")  # functions whose first argument is printed
ERRORS = ("Error", "Changed", "Denied", "Refused")  # endings of the names of exceptions
FOR_PEOPLE = ("help", "short_help", "epilog", "hint", "message", "description", "reason")
DIRECTIVE = re.compile(r"^(noqa|type:|pragma|fmt:|ruff|mypy|yaml-language-server|!|-\*-)")
# A sentence ends before a capital, a digit or a quotation mark, but not after an abbreviation.
ABBREVIATIONS = "".join(rf"(?<!\b{short})" for short in (r"e\.g\.", r"i\.e\.", r"vs\.", r"cf\."))
END = re.compile(ABBREVIATIONS + r"""(?<=[.!?])["'”’)\]*]*\s+(?=[“‘(\[*]*[A-Z0-9…]|[“‘(\[*]*["'`]\w)""")
ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,2}[.)])\s+")

Line = tuple[int, str]  # (number of the line in the file, text)
Paragraph = list[Line]
Sentence = tuple[str, int, str]  # (path, line on which the sentence begins, text)


def sentences(root: Path) -> list[Sentence]:
    """All sentences of the project, sorted by path and line. A text that occurs twice is listed once."""
    by_text: dict[str, Sentence] = {}
    for path in files(root):
        text = path.read_text(encoding="utf-8")
        for paragraph in paragraphs(path, text):
            for line, sentence in split(paragraph):
                by_text.setdefault(sentence, (path.relative_to(root).as_posix(), line, sentence))
    return sorted(by_text.values())


def files(root: Path) -> list[Path]:
    patterns = ["*.md", "docs/*.md", "prompts/**/*.md", "data/**/*.md", "synthgen/templates/*.j2"]
    patterns += [f"{folder}/**/*.py" for folder in CODE]
    patterns += [f"{folder}/**/*.yaml" for folder in ("prompts", "data")] + ["pyproject.toml", "Makefile"]
    return sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})


def paragraphs(path: Path, text: str) -> Iterator[Paragraph]:
    if path.suffix == ".py":
        yield from python(text)
    elif path.suffix == ".md":
        yield from markdown(text)
    elif path.suffix == ".j2":
        yield from template(text)
    else:
        lines = [
            (number, line.strip()[1:].strip()) for number, line in enumerate(text.splitlines(), 1) if is_comment(line)
        ]
        yield from joined((number, line) for number, line in lines if not DIRECTIVE.match(line))


def is_comment(line: str) -> bool:
    return line.strip().startswith("#")


def split(paragraph: Paragraph) -> Iterator[Line]:
    """The sentences of a paragraph that have at least `WORDS` words, each with the line on which it begins."""
    text, starts = "", []
    for number, line in paragraph:
        starts.append((len(text), number))
        text += " ".join(line.split()) + " "
    begin = 0
    for end in [*(match.end() for match in END.finditer(text)), len(text)]:
        sentence = text[begin:end].strip()
        if len(re.findall(r"[^\W\d_]{2,}|\ba\b|\bI\b", sentence)) >= WORDS:
            yield max(number for start, number in starts if start <= begin), sentence
        begin = end


# Markdown and templates


def markdown(text: str) -> Iterator[Paragraph]:
    """The paragraphs and list items of a Markdown page, without front matter, code, tables and headings."""
    paragraph: Paragraph = []
    fence, in_list = "", False
    for number, line in enumerate(_without_front_matter(text), 1):
        bare = line.strip().removeprefix("> ")
        if bare.startswith(("```", "~~~")):
            fence = "" if fence and bare.startswith(fence) else fence or bare[:3]
            bare = ""
        code = line.startswith("    ") and not paragraph and not in_list
        if fence or code or not bare or bare.startswith(("|", "#", "<!--", "---")):
            yield paragraph
            paragraph, in_list = [], in_list and not bare
            continue
        if ITEM.match(line):
            yield paragraph
            paragraph, in_list = [], True
        paragraph.append((number, ITEM.sub("", bare)))
    yield paragraph


def _without_front_matter(text: str) -> list[str]:
    lines = text.splitlines()
    if lines[:1] == ["---"] and "---" in lines[1:]:
        end = lines.index("---", 1)
        lines[: end + 1] = [""] * (end + 1)
    return lines


def template(text: str) -> Iterator[Paragraph]:
    """The text of a template, without HTML tags, styles and scripts. An expression becomes "…"."""

    def blank(match: re.Match[str]) -> str:
        return "\n" * match.group().count("\n")

    text = re.sub(r"(?s)<(style|script)\b.*?</\1>|\{#.*?#\}|\{%.*?%\}", blank, text)
    text = re.sub(r"(?s)\{\{.*?\}\}", lambda match: "…" + blank(match), text)
    text = re.sub(r"</?(p|li|td|th|h\d|div|figcaption|summary|dt|dd|title|tr)\b[^>]*>", "\0", text)
    text = re.sub(r"<[^>]+>", "", text)
    for paragraph in markdown(text):
        pieces: Paragraph = []
        for number, line in paragraph:
            for place, piece in enumerate(line.split("\0")):
                if place:
                    yield pieces
                    pieces = []
                pieces.append((number, piece))
        yield pieces


# Python


def python(text: str) -> Iterator[Paragraph]:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from docstring(node.value.value, node.lineno)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from messages(node.exc, every=True)
        elif isinstance(node, ast.Call):
            yield from messages(node, every=_name(node.func) in NOTES or _name(node.func).endswith(ERRORS))
    yield from joined(comments(text))


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def docstring(text: str, first: int) -> Iterator[Paragraph]:
    """The paragraphs and list items of a docstring. Lines with more indentation than the rest are code."""
    lines = text.splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    level = "\n".join([*(line.strip(" \b") for line in lines[:1]), *(line[margin:].strip("\b") for line in lines[1:])])
    for paragraph in markdown(level):
        yield [(first + number - 1, line) for number, line in paragraph]


def messages(call: ast.Call, every: bool) -> Iterator[Paragraph]:
    """The strings in keyword arguments with a name in FOR_PEOPLE and, if `every` is set, in positional arguments."""
    for value in call.args if every else ():
        yield from _message(value)
    for keyword in call.keywords:
        if keyword.arg in FOR_PEOPLE:
            yield from _message(keyword.value)


def _message(value: ast.expr) -> Iterator[Paragraph]:
    if isinstance(value, ast.IfExp):
        yield from _message(value.body)
        yield from _message(value.orelse)
    elif text := _text(value):
        yield [(value.lineno, text)]


def _text(value: ast.expr) -> str:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if isinstance(value, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in value.values)
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _text(value.left) + _text(value.right)
    return ""


def comments(text: str) -> Iterator[Line]:
    """Each comment with its line. A comment that follows code on the same line is marked with a zero byte, so that
    `joined` keeps it separate.
    """
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            number = token.start[0]
            text_of_comment = token.string.lstrip("#").strip()
            if not DIRECTIVE.match(text_of_comment):
                beside = bool(lines[number - 1][: token.start[1]].strip())
                yield number, ("\0" if beside else "") + text_of_comment


def joined(lines: Iterable[Line]) -> Iterator[Paragraph]:
    """Joins comments on consecutive lines to one paragraph. A comment with a zero byte is a separate paragraph."""
    paragraph: Paragraph = []
    for number, line in lines:
        alone = line.startswith("\0")
        if alone or not line.strip() or (paragraph and number != paragraph[-1][0] + 1):
            yield paragraph
            paragraph = []
        if alone:
            yield [(number, line[1:])]
        elif line.strip():
            paragraph.append((number, line))
    yield paragraph


def main(arguments: list[str] | None = None, root: Path = REPOSITORY) -> int:
    parser = argparse.ArgumentParser(description="Draw sentences at random from all prose of the project.")
    parser.add_argument("-n", type=int, default=200, help="how many sentences to draw; default 200")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the draw; default 0")
    options = parser.parse_args(arguments)
    every = sentences(root)
    drawn = random.Random(options.seed).sample(every, min(options.n, len(every)))
    print(f"{len(drawn)} of {len(every)} sentences, seed {options.seed}")
    for number, (path, line, sentence) in enumerate(drawn, 1):
        print(f"{number}. [{path}:{line}] {sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
