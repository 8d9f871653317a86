"""Documents out of text: YAML with several documents, or JSON.

YAML is read as its core schema says (YAML 1.2, 10.3.2), as Kubernetes' tools nearly do: `63400:30` is a community and
no number in base 60, a date is text, `yes` is a word. A name that stands twice in one mapping is an error.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

import msgspec
import yaml

from calipy.resources.metadata import Problem, Refused


class _Loader(yaml.CSafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML's, but no key may come twice, and all are text, as JSON wants them."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is not text", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


for tag, pattern, first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("merge", r"^<<$", "<"),
):
    characters = [*first.replace("\0", ""), *([""] if "\0" in first else [])]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), characters)


def _integer(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> int:
    # PyYAML's own would take a leading zero for octal.
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def documents(where: str, text: str) -> Iterator[object]:
    """Each document of `text`, None for an empty one. Raises Refused with line and column where it isn't YAML or JSON;
    the documents before are whole."""
    if text.lstrip().startswith("{"):
        # JSON has escapes that YAML's reader doesn't know; what isn't JSON may be YAML in flow style.
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError:
            pass
        else:
            yield found
            return
    try:
        yield from yaml.load_all(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the text"
        problem = Problem(line, "", f"is not YAML: {error.problem or error.context}", "mend it there")
        raise Refused(where, [problem]) from error
    except yaml.YAMLError as error:
        raise Refused(where, [Problem("the text", "", f"is not YAML: {error}", "write it in UTF-8")]) from error
