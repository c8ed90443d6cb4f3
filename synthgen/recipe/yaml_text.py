"""Reads YAML that may be hostile: aliases that expand without limit, values that contain themselves, deep nesting,
values that JSON lacks.

    node, values = load_yaml(text)

PyYAML's safe loader runs no code, but it has no limits.
"""

from __future__ import annotations

import yaml

_LARGEST = 2 << 20  # characters
_DEEPEST = 60  # levels of nesting
_MOST = 200_000  # maximum number of values; an alias counts as all values that it stands for
_REFUSED = {
    "timestamp": "YAML reads this value as a date: put it in quotes",
    "binary": "binary values are not used in recipes: write text",
    "set": "sets are not used in recipes: write a list",
    "omap": "write a mapping without a tag",
    "pairs": "write a mapping without a tag",
}
_TAG = "tag:yaml.org,2002:"


class YamlProblem(Exception):
    """YAML that cannot be read. `line` counts from 1; None when the problem has no line."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.text, self.line = text, line


def load_yaml(text: str) -> tuple[yaml.Node | None, object]:
    """Return (node tree, values) of a YAML text. Raises YamlProblem."""
    if len(text) > _LARGEST:
        raise YamlProblem(f"it has more than {_LARGEST >> 20} million characters")
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None, None
        _check_size(node, {})
        values: object = yaml.SafeLoader("").construct_document(node)
    except RecursionError:
        raise YamlProblem("its values are nested too deep") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise YamlProblem(f"not valid YAML: {problem}", mark.line + 1 if mark else None) from None
    except (ValueError, OverflowError) as error:  # for example a number of 5,000 digits, or February 30
        raise YamlProblem(f"not valid YAML: {error}") from None
    return node, values


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark else None
            raise YamlProblem(f"its values are nested more than {_DEEPEST} levels deep", line)


def _check_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of values in `node`, where each alias counts as all values that it stands for. `sizes` holds the sizes
    of the nodes seen before; the size of a node that is still being counted is 0.
    """
    line = node.start_mark.line + 1
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise YamlProblem("this value contains itself", line)
        return sizes[id(node)]
    sizes[id(node)] = 0
    kind = node.tag.removeprefix(_TAG)
    if kind in _REFUSED:
        raise YamlProblem(_REFUSED[kind], line)
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise YamlProblem("this text is not valid Unicode", line)
    else:
        inside = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        for part in inside:
            size += _check_size(part, sizes)
            if size > _MOST:
                raise YamlProblem(f"its aliases stand for more than {_MOST:,} values", line)
    sizes[id(node)] = size
    return size
