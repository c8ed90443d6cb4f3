"""A prompt is a folder of Jinja templates that are rendered to chat messages. A hash of the folder's files identifies
the prompt.

    user.j2            what the student is asked (required)
    system.j2          the student's system message
    teacher_system.j2  the teacher's system message, if different
    teacher_user.j2    what the teacher is asked, if different
    examples.jsonl     few-shot examples for the teacher only, one a line; their questions are rendered as the seed's is
    assistant.j2       renders the answer of an example
    NAME.j2            what a teacher is asked in a further step of the strategy, such as a judgment
    NAME_system.j2     the system message of that step

An example may have the key `when`, an object of fields and values, such as {"kind": "calculate"}. The teacher then sees
the example only with seeds that have all these values.

Templates are rendered in Jinja's sandbox. A variable that the seed does not have is an error, not an empty string. It
is also an error to print a value that a person would not write as text: null, NaN, an infinite number, a list or an
object.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template, TemplateError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from synthgen.errors import RecipeError
from synthgen.jsonl import read_object
from synthgen.records import Message
from synthgen.values import is_blank, is_null, is_unseen

_TEMPLATES = ("user", "system", "teacher_system", "teacher_user", "assistant")

Fields = Mapping[str, object]
"""The variables of a template."""


@dataclass(frozen=True)
class _Piece:
    """A part of a template: literal text, or the name of a variable."""

    text: str
    is_variable: bool


class _Unprintable(ValueError):
    """A template prints a value that has no text."""


class _Printer:
    """Jinja's `finalize`: it gets every value that a template prints. `count` is the number of values that were printed
    since `count` and `texts` were last set to 0, and `texts` is the number of those values that are not blank.
    """

    count = texts = 0

    def __call__(self, value: object) -> object:
        if type(value) is not str:
            _check(value)
        self.count += 1
        self.texts += not isinstance(value, str) or not is_unseen(value)
        return value


def _check(value: object) -> None:
    """Raise an error for a value whose Python text would be wrong in a prompt."""
    if is_null(value):
        raise _Unprintable("a printed value is null")
    if isinstance(value, float) and math.isinf(value):
        raise _Unprintable("a printed number is infinite")
    if isinstance(value, list | tuple | dict):
        raise _Unprintable("a printed value is a list or an object, not text")


@dataclass(frozen=True)
class Prompt:
    """The templates of one task. `version` is name@hash and changes when any of the files changes."""

    name: str
    version: str
    templates: dict[str, Template]
    examples: list[dict[str, object]] = field(default_factory=list)
    pieces: dict[str, list[_Piece]] = field(default_factory=dict)
    """Templates that consist only of text and variables. The parts of these templates are joined directly, which is
    five times as fast as Jinja.
    """
    printer: _Printer = field(default_factory=_Printer)
    _turns_of: dict[tuple[str, int], list[Message]] = field(default_factory=dict)

    @cached_property
    def alike(self) -> bool:
        """Whether student and teacher get the same prompt."""
        return not self.examples and not {"teacher_system", "teacher_user"} & self.templates.keys()

    def student(self, fields: Fields, question: str | None = None) -> list[Message]:
        """The messages that the student sees. `question` is the rendered user.j2, if it was rendered already."""
        text = self.render("user", fields) if question is None else question
        return [*self._system("system", fields), _message("user", text)]

    def question(self, fields: Fields) -> str:
        """The student's user message, which is the seed's question. Raises RecipeError when the question is empty."""
        return self.ask("user", fields)

    def teacher(self, fields: Fields, user: str = "") -> list[Message]:
        """The messages that the teacher gets: the system message, the examples, and the question.

        `user` names the template that renders the question and the examples' questions. The default is teacher_user if
        there is such a template, and otherwise user."""
        system = self._system("teacher_system" if "teacher_system" in self.templates else "system", fields)
        user = user or ("teacher_user" if "teacher_user" in self.templates else "user")
        return [*system, *self._shown(user, fields), _message("user", self.render(user, fields))]

    def step(self, name: str, fields: Fields) -> list[Message]:
        """The messages of a later request in a strategy: NAME_system.j2, if there is such a template, and NAME.j2,
        rendered.
        """
        return [*self._system(f"{name}_system", fields), _message("user", self.render(name, fields))]

    def ask(self, name: str, fields: Fields) -> str:
        """Render the template of a question. Raises RecipeError when the question is empty, which means that the
        template prints values and all of them are blank.
        """
        pieces = self.pieces.get(name)
        if pieces is not None:
            text, empty = self.render(name, fields), False
            for piece in pieces:
                if piece.is_variable:
                    empty = is_blank(fields[piece.text])
                    if not empty:
                        break
        else:
            self.printer.count = self.printer.texts = 0
            text = self.render(name, fields)
            empty = self.printer.count > 0 == self.printer.texts
        if empty:
            raise RecipeError(
                f"template {self.name}/{name}.j2: the question is empty", "leave the seed out, or fill it in"
            )
        return text

    def render(self, name: str, fields: Fields, whose: str = "seed") -> str:
        """Render one template. Raises RecipeError, which names the template and the missing variable."""
        pieces = self.pieces.get(name)
        if pieces is not None:
            try:
                return "".join(
                    [
                        p.text if not p.is_variable else v if type(v := fields[p.text]) is str else _printed(v)
                        for p in pieces
                    ]
                ).strip()
            except (KeyError, _Unprintable):  # Jinja, below, raises an error that names a missing variable
                pass
        where = f"template {self.name}/{name}.j2"
        try:
            return self.templates[name].render(fields).strip()
        except UndefinedError as error:
            raise RecipeError(
                f"{where}: {error.message}; the {whose} has: {', '.join(sorted(fields))}",
                "add the field to the seed, or name its column in `seeds.fields`"
                if whose == "seed"
                else "add the field to examples.jsonl",
            ) from None
        except _Unprintable as error:
            bad = ", ".join(sorted(key for key, value in fields.items() if not _is_printable(value)))
            raise RecipeError(
                f"{where}: {error}; look at the {whose}'s: {bad or 'values'}",
                "give it a text, leave the row out, or change the template, such as {{ names | join(', ') }}",
            ) from None
        except Exception as error:  # a template is the user's program and can raise anything
            raise RecipeError(f"{where}: {error}", "correct the template") from None

    def need(self, names: Iterable[str], strategy: str) -> None:
        """Raise RecipeError when a template that `strategy` needs is missing."""
        for name in names:
            if name not in self.templates:
                raise RecipeError(
                    f"strategy '{strategy}' needs the template {name}.j2, which '{self.name}' does not have",
                    f"prompts/{strategy}/ has an example",
                )

    def beginning(self, prefix: str) -> list[str]:
        """The names of all templates whose name begins with `prefix`, sorted. Templates of system messages are left
        out.
        """
        return sorted(name for name in self.templates if name.startswith(prefix) and not name.endswith("_system"))

    def _system(self, name: str, fields: Fields) -> list[Message]:
        return [_message("system", self.render(name, fields))] if name in self.templates else []

    def _shown(self, user: str, fields: Fields) -> list[Message]:
        """The messages of the few-shot examples that are shown with a seed that has these fields."""
        turns: list[Message] = []
        for place, example in enumerate(self.examples):
            if self._applies(example, fields):
                turns += self._turns(user, place)
        return turns

    def _turns(self, user: str, place: int) -> list[Message]:
        """The two messages of one example. An example is rendered only once, because its messages are the same for
        every seed.
        """
        if (user, place) not in self._turns_of:
            example = self.examples[place]
            self._turns_of[user, place] = [
                _message("user", self.render(user, example, "example")),
                _message("assistant", self.render("assistant", example, "example")),
            ]
        return self._turns_of[user, place]

    def _applies(self, example: Fields, fields: Fields) -> bool:
        """Whether a seed has all values in the example's key `when`. Raises RecipeError if the seed lacks a field that
        `when` names.
        """
        when = example.get("when")
        if not isinstance(when, dict):
            return True
        if missing := sorted(when.keys() - fields.keys()):
            raise RecipeError(
                f"examples.jsonl of '{self.name}': `when` names '{missing[0]}', which the seed does not have; "
                f"the seed has: {', '.join(sorted(fields))}",
                "add the field to the seed, name its column in `seeds.fields`, or leave `when` out",
            )
        return all(fields[name] == value for name, value in when.items())


def _printed(value: object) -> str:
    _check(value)
    return str(value)


def _is_printable(value: object) -> bool:
    try:
        _check(value)
    except _Unprintable:
        return False
    return True


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def load_prompt(folder: str, name: str) -> Prompt:
    """Read a folder of templates. Raises RecipeError when a template is missing or broken."""
    root = Path(folder)
    printer = _Printer()
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False, finalize=printer
    )
    hasher = hashlib.sha256()
    templates: dict[str, Template] = {}
    texts: list[str] = []
    pieces: dict[str, list[_Piece]] = {}
    others = sorted(path.stem for path in root.glob("*.j2") if path.stem not in _TEMPLATES)
    for key in (*_TEMPLATES, *others):  # `version` is a hash of the templates in this order
        path = root / f"{key}.j2"
        if path.is_file():
            text = _read(path)
            texts.append(text)
            hasher.update(f"{key}\0{text}\0".encode())
            try:
                templates[key] = environment.from_string(text)
                # In every rendering, Jinja copies the template's globals. Copying a dictionary is faster than copying
                # Jinja's ChainMap.
                templates[key].globals = dict(templates[key].globals)
                if (parts := _pieces(environment, text)) is not None:
                    pieces[key] = parts
            except TemplateError as error:
                line = getattr(error, "lineno", "?")
                raise RecipeError(f"{path}, line {line}: {error}", "correct the template") from None
    if "user" not in templates:
        raise RecipeError(f"no user.j2 in '{root}'", "a task's folder needs at least user.j2; see prompts/README.md")
    printed = any("when" in meta.find_undeclared_variables(environment.parse(text)) for text in texts)
    examples = _examples(root / "examples.jsonl", printed=printed)
    if examples and "assistant" not in templates:
        raise RecipeError(
            f"'{root}' has examples.jsonl but no assistant.j2",
            "write assistant.j2, which renders the answer of an example",
        )
    hasher.update(json.dumps(examples, sort_keys=True).encode())
    return Prompt(name, f"{name}@{hasher.hexdigest()[:12]}", templates, examples, pieces, printer)


def _pieces(environment: Environment, text: str) -> list[_Piece] | None:
    """The parts of a template that consists only of text and variables; None if the template has anything else."""
    found: list[_Piece] = []
    for output in environment.parse(text).body:
        for node in output.nodes if isinstance(output, nodes.Output) else [output]:
            if isinstance(node, nodes.TemplateData):
                found.append(_Piece(node.data, is_variable=False))
            # in Jinja, these three names have a special meaning and are not variables
            elif isinstance(node, nodes.Name) and node.name not in ("self", "super", "caller"):
                found.append(_Piece(node.name, is_variable=True))
            else:
                return None
    return found


def _examples(path: Path, *, printed: bool) -> list[dict[str, object]]:
    """The few-shot examples. `printed` says whether the templates have a variable `when`. Without it, a `when` that is
    not a condition is an error, because the example would be shown with every seed.
    """
    rows: list[dict[str, object]] = []
    # Do not use splitlines: a JSON string may contain U+2028.
    for number, line in enumerate(_read(path).split("\n") if path.is_file() else [], 1):
        if not line.strip():
            continue
        try:
            rows.append(read_object(line.encode()))
        except ValueError as error:
            raise RecipeError(f"{path}, line {number}: {error}", "write one JSON object in each line") from None
        if not (printed or isinstance(rows[-1].get("when", {}), dict)):
            raise RecipeError(
                f"{path}, line {number}: `when` is no object, so it does not say which seeds see the example",
                'write an object, such as "when": {"kind": "calculate"}',
            )
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason})", "save it as UTF-8") from None
