"""onnxruntime's load errors, said as one sentence with what to do about it.

The sentence is the last line of the server's output, which Kubernetes keeps as the
container's termination message and the operator shows in the resource's status.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_LOAD = re.compile(r"^Load model from .*? failed: ?", re.DOTALL)
_SOURCE = re.compile(
    r"(?:Error: )?(?:/\S+/)?[\w.]+\.(?:cc|h|cpp):\d+ "  # file and line in onnxruntime
    r"(?:.*?\(.*?\)(?: const)? |[\w:~<>]+ )?",  # the function's signature
    re.DOTALL,
)
_LIMIT = 600
_READ = 4000


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    say: Callable[[re.Match[str], Path], str]


def _rule(pattern: str, say: Callable[[re.Match[str], Path], str]) -> _Rule:
    return _Rule(re.compile(pattern, re.DOTALL | re.IGNORECASE), say)


_RULES: tuple[_Rule, ...] = (
    _rule(
        r"bad_alloc|failed to allocate memory|cannot allocate memory",
        lambda _, path: (
            f"out of memory while loading {path.name} ({_size(path)}): raise the container's "
            "memory limit (about three times the model's size), or export a smaller model"
        ),
    ),
    _rule(
        r'External data path does not exist: "(?P<file>[^"]*)"',
        lambda m, path: (
            f"{path.name} keeps weights in the file '{_below(m['file'], path)}', which is not "
            "beside it: upload the external data files together with the model"
        ),
    ),
    _rule(
        r"Absolute path not allowed for external data|escapes model directory",
        lambda _, path: (
            f"{path.name} points to external data outside its own folder, which is refused: "
            "save the model again with its external data beside it, by a relative path"
        ),
    ),
    _rule(
        r"External initializer: (?P<name>\S+) offset: \d+ size to read: (?P<want>\d+) "
        r"given file_length: (?P<have>\d+)",
        lambda m, path: (
            f"the external data of {path.name} is cut short: tensor '{m['name']}' wants "
            f"{m['want']} bytes of a file that has {m['have']}: upload that file again"
        ),
    ),
    _rule(
        r"(?P<domain>[\w.]*):(?P<op>\w+)\(-1\) is not a registered function/op",
        lambda m, path: _unknown_operator(m["op"], m["domain"], path),
    ),
    _rule(
        r"No Op registered for (?P<op>\w+) with domain_version of (?P<opset>\d+)",
        lambda m, path: (
            f"{path.name} uses the operator '{m['op']}', which opset {m['opset']} does not "
            "have: export the model for an opset that has it, or without that operator"
        ),
    ),
    _rule(
        r"Could not find an implementation for (?P<op>\w+)\((?P<since>\d+)\)",
        lambda m, path: (
            f"{path.name} uses the operator '{m['op']}' with a type that onnxruntime has not "
            "on this device: export the model with FP32 tensors for that operator"
        ),
    ),
    _rule(
        r"Opset (?P<opset>\d+) is under development.*?for domain (?P<domain>[\w.]+) is till "
        r"opset (?P<limit>\d+)",
        lambda m, path: (
            f"{path.name} is of opset {m['opset']} of {m['domain']}, this server knows up to "
            f"{m['limit']}: export it with opset {m['limit']} or lower"
        ),
    ),
    _rule(
        r"Unsupported model IR version: (?P<ir>\d+), max supported IR version: (?P<limit>\d+)",
        lambda m, path: (
            f"{path.name} is of ONNX IR version {m['ir']}, this server knows up to "
            f"{m['limit']}: save it with an older onnx package, or set its ir_version"
        ),
    ),
    _rule(
        r"Protobuf parsing failed|No graph was found in the protobuf|INVALID_PROTOBUF",
        lambda _, path: (
            f"{path.name} ({_size(path)}) is not an ONNX model, or it is cut short: upload the "
            "file again and compare its digest"
        ),
    ),
    _rule(
        r"No such file|File doesn't exist|Permission denied|system error number 13",
        lambda _, path: f"{path} cannot be read: it must be a file that user 65532 may read",
    ),
)


def explain(error: BaseException, path: Path) -> str:
    """One sentence on why `path` cannot be loaded and what to do.

    Args:
        error: what onnxruntime, or Python, raised.
        path: the model's file.
    """
    text = "bad_alloc" if isinstance(error, MemoryError) else str(error)
    for rule in _RULES:
        match = rule.pattern.search(text)
        if match:
            return rule.say(match, path)
    return (
        f"onnxruntime cannot load {path.name}: {one_line(text)}: check the model with "
        "onnx.checker and load it with onnxruntime where it was exported"
    )


def one_line(text: str) -> str:
    """The runtime's message without its codes and source positions, on one bounded line."""
    text = _LOAD.sub("", _PREFIX.sub("", text[:_READ]))
    text = _SOURCE.sub("", text)
    text = " ".join(text.split()).rstrip(" .:")
    return text if len(text) <= _LIMIT else text[:_LIMIT] + "…"


def _unknown_operator(operator: str, domain: str, path: Path) -> str:
    named = f"'{domain}:{operator}'" if domain else f"'{operator}'"
    return (
        f"{path.name} uses the operator {named}, which onnxruntime does not know: export the "
        "model with standard operators only, since custom operator libraries are not loaded"
    )


def _below(file: str, path: Path) -> str:
    """The external file as the model names it: relative to the model's folder."""
    try:
        return str(Path(file).relative_to(path.parent.resolve()))
    except ValueError:
        return file


def _size(path: Path) -> str:
    try:
        size = path.stat().st_size
    except OSError:
        return "unknown size"
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size} {unit}"
        size //= 1000
    return f"{size} GB"
