"""``mooring lint``: the rules of the cluster, without one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mooring.cli.failure import DONE, FAILED
from mooring.cli.options import no_color_option, output_option

if TYPE_CHECKING:
    from mooring.cli.documents import Document

_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where. ``path`` is the field as the API server writes it; ``line`` counts
    from 1, and is None where no line can be named.
    """

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a file: ``checked`` resources of ours, ``skipped`` ones of others."""

    problems: tuple[Problem, ...]
    checked: int
    skipped: tuple[str, ...]


@click.command()
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
)
@output_option("json")
@no_color_option
def lint(files: tuple[Path, ...], output: str, no_color: bool) -> None:
    """Check ModelDeployments and the other kinds of Mooring in files, as the cluster would.

    Unknown fields are refused, too. FILE may be - for standard input, or a folder, of which every
    .yaml, .yml and .json is read. A file may hold several documents; other kinds in it are skipped.
    PromQL is parsed as the operator parses it, and what nobody measures is named.
    What needs a second object (whether a runtime exists) only the cluster can tell.

    Exit codes: 0 nothing is wrong; 1 something is; 2 wrong usage.
    """
    from rich.text import Text

    from mooring.cli.output import console, data

    reports = list(_reports(files))
    problems = [problem for report in reports for problem in report.problems]
    checked = sum(report.checked for report in reports)
    skipped = [note for report in reports for note in report.skipped]
    if output != "text":
        found = [asdict(problem) for problem in problems]
        value = {"checked": checked, "skipped": skipped, "problems": found}
        click.echo(data(value, output), nl=False)
    else:
        out = console(no_color)
        for problem in problems:
            out.print(Text(str(problem), "red"), soft_wrap=True)
        for note in skipped:
            click.echo(f"skipped: {note}", err=True)
        if not problems:
            click.echo(_summary(checked), err=True)
    sys.exit(FAILED if problems else DONE)


def _summary(checked: int) -> str:
    """How it ended without a problem; nothing to check must not read as if all were well."""
    from mooring.api import GROUP

    if not checked:
        return f"Nothing was checked: there is no resource of {GROUP} here."
    return f"{checked} resource{' is' if checked == 1 else 's are'} as the cluster wants."


def _reports(files: tuple[Path, ...]) -> Iterator[Report]:
    for file in files:
        if str(file) == "-":
            yield _check("<stdin>", sys.stdin.buffer.read)
        elif file.is_dir():
            found = sorted(p for p in file.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            yield from (_check(str(path), path.read_bytes) for path in found)
        else:
            yield _check(str(file), file.read_bytes)


def _check(file: str, read: Callable[[], bytes]) -> Report:
    """A file that cannot be read is a problem of its own, and keeps no other from being read."""
    try:
        return check(file, read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        message = f"this is not UTF-8 text (byte {error.start + 1}), which Kubernetes reads"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    return Report((Problem(file, None, "", message),), 0, ())


def check(file: str, text: str) -> Report:
    """All that is wrong with the resources of Mooring in one file."""
    from mooring.cli.documents import BadYaml, read_documents

    problems: list[Problem] = []
    skipped: list[str] = []
    checked = 0
    try:
        for document in read_documents(text):
            other = _other(document)
            if other:
                skipped.append(f"{file}:{document.line}: {other}")
                continue
            checked += 1
            problems += sorted(_problems(file, document), key=lambda p: p.line or 0)
    except BadYaml as error:
        problems.append(Problem(file, error.line, "", str(error)))
    return Report(tuple(problems), checked, tuple(skipped))


def _other(document: Document) -> str:
    """What the document is when it is none of ours; empty when it is to be checked."""
    from mooring.api import GROUP
    from mooring.api.validation import KINDS

    if not isinstance(document.value, dict):
        return ""
    kind, version = document.value.get("kind"), str(document.value.get("apiVersion") or "")
    if kind in KINDS and not version:
        return ""
    if version.partition("/")[0] == GROUP:
        return ""
    return f"{kind or 'a document without kind'} ({version or 'no apiVersion'}) is not of {GROUP}"


def _problems(file: str, document: Document) -> Iterator[Problem]:
    from mooring.api import InvalidResource, ModelDeployment
    from mooring.api.validation import lint as validate
    from mooring.cli.lint_analysis import analysis_problems
    from mooring.cli.lint_data import data_problems

    if not isinstance(document.value, dict):
        yield Problem(file, document.line, "", "must be an object with apiVersion, kind and spec")
        return
    for line, message in document.duplicates:
        yield Problem(file, line, "", message)
    try:
        resource = validate(document.value)
    except InvalidResource as error:
        for problem in error.problems:
            path, separator, message = problem.partition(": ")
            # Rules of the whole object have no path; a sentence may hold a colon all the same.
            if not separator or " " in path:
                path, message = "", problem
            yield Problem(file, document.line_of(path), path, message)
    else:
        if isinstance(resource, ModelDeployment):
            for path, message in (*analysis_problems(resource), *data_problems(resource)):
                yield Problem(file, document.line_of(path), path, message)
