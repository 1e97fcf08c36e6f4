"""YAML files with the line of every field, read as Kubernetes reads them.

Kubernetes turns YAML into JSON: there are no dates, a key stands once, and an alias cannot grow a
small file into a huge one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

#: No file that people write comes near it, and an API server would refuse what does.
_MOST_NODES = 200_000
_PART = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")


class BadYaml(ValueError):
    """A file that cannot be read; ``line`` counts from 1."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a file. ``duplicates`` are keys that stand twice, with their lines."""

    value: Any
    node: Node
    duplicates: tuple[tuple[int, str], ...] = ()

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1

    def line_of(self, path: str) -> int:
        """The line of a field such as ``spec.steps[0].weight``, or of the nearest one around it."""
        node, line = self.node, self.line
        for match in _PART.finditer(path):
            found = _step(node, match[1] if match[1] is not None else match[2])
            if found is None:
                break
            line, node = found
        return line


class _Loader(yaml.SafeLoader):
    """SafeLoader without dates and without numbers of base 60, which JSON does not have, and with
    the y and n of YAML 1.1, which PyYAML leaves out and kubectl takes for true and false.
    """

    bool_values: ClassVar[dict[str, bool]] = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|(?:0|[1-9][0-9_]*))$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))


def read_documents(text: str) -> Iterator[Document]:
    """The objects of a file; a List gives its items. Raises BadYaml."""
    try:
        for node in yaml.compose_all(text, _Loader):
            _count(node, {}, set())
            yield from _expand(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise BadYaml(f"this is not YAML: {error.problem}", line) from error
    except yaml.YAMLError as error:
        raise BadYaml(f"this is not YAML: {error}", None) from error


def _expand(node: Node) -> Iterator[Document]:
    if isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return  # an empty document
    value = _value(node)
    items = _child(node, "items")
    listed = isinstance(value, dict) and str(value.get("kind")).endswith("List")
    if listed and isinstance(items, SequenceNode):
        for item in items.value:
            yield from _expand(item)
    else:
        yield Document(value, node, tuple(_duplicates(node)))


def _value(node: Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except (ValueError, TypeError) as error:
        raise BadYaml(f"this is not YAML: {error}", node.start_mark.line + 1) from error
    finally:
        loader.dispose()


def _count(node: Node, known: dict[int, int], open_: set[int]) -> int:
    """How many nodes there are once every alias is written out; raises BadYaml for too many."""
    if id(node) in open_:
        raise BadYaml("an alias holds itself", node.start_mark.line + 1)
    if id(node) not in known:
        open_.add(id(node))
        known[id(node)] = 1 + sum(_count(child, known, open_) for child in _children(node))
        open_.discard(id(node))
        if known[id(node)] > _MOST_NODES:
            raise BadYaml("its aliases make it far too large", node.start_mark.line + 1)
    return known[id(node)]


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _duplicates(node: Node) -> Iterator[tuple[int, str]]:
    seen: set[str] = set()
    if isinstance(node, MappingNode):
        for key, _ in node.value:
            if key.value in seen:
                yield key.start_mark.line + 1, f"the key {key.value} stands here a second time"
            if isinstance(key, ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                seen.add(key.value)
    for child in _children(node):
        yield from _duplicates(child)


def _step(node: Node, part: str) -> tuple[int, Node] | None:
    """The line and the value of a key or an index."""
    if isinstance(node, SequenceNode) and part.isdigit() and int(part) < len(node.value):
        item = node.value[int(part)]
        return item.start_mark.line + 1, item
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    return None


def _child(node: Node, name: str) -> Node | None:
    found = _step(node, name)
    return found[1] if found else None
