"""``mooring reference build``: what drift is judged against, from a training table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mooring.cli.failure import Failure
from mooring.cli.options import no_color_option

if TYPE_CHECKING:
    from mooring.cli.reference_table import Column, TrainingTable
    from mooring.core.drift.reference import Calibration, FeatureReference, Reference

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
#: A column of texts nearly all of which differ is an identifier, and nothing can be said of it.
_IDENTIFIER = 0.5
_DATE = re.compile(r"(\d{4}-\d\d-\d\d|\d{1,2}[./]\d{1,2}[./]\d{4})([T ].*)?")
#: Letters of a name that spec.monitoring can hold, and of a text that is a category.
_LONGEST_NAME = 128
_LONGEST_TEXT = 256
#: What captured traffic has in the place of a text that its own reference did not list: counted as
#: unseen again, and no category.
_UNSEEN = "(unseen)"
#: Rows from which on a reference is worth the name: 30 times a window of any traffic.
_FEW = 1000


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def reference() -> None:
    """Build the reference that drift is judged against."""


@reference.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "table", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--name",
    required=True,
    help="Name of the ConfigMap.",
)
@click.option("-n", "--namespace", default="", help="Namespace to write into the ConfigMap.")
@click.option(
    "--features",
    metavar="A,B,...",
    multiple=True,
    help="Columns to watch; by default all but those named below.",
)
@click.option("--exclude", metavar="A,B,...", multiple=True, help="Columns to leave out.")
@click.option(
    "--categorical",
    metavar="A,B,...",
    multiple=True,
    help="Columns whose numbers are names, such as a branch code.",
)
@click.option(
    "--hash",
    "hashed",
    metavar="A,B,...",
    multiple=True,
    help="Columns of texts of which only hashes are kept, as spec.monitoring has them (hash).",
)
@click.option(
    "--prediction",
    metavar="COLUMN",
    multiple=True,
    help="Columns with the model's answers; by default those that captured traffic has as outputs.",
)
@click.option(
    "--label",
    metavar="COLUMN",
    default="",
    help="Column with the true class, 0 or 1: what scores mean is learnt from it, so take rows "
    "that the model was not trained on.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="Form of the ConfigMap.",
)
@no_color_option
def build(
    *,
    table: Path,
    name: str,
    namespace: str,
    features: tuple[str, ...],
    exclude: tuple[str, ...],
    categorical: tuple[str, ...],
    hashed: tuple[str, ...],
    prediction: tuple[str, ...],
    label: str,
    output: str,
    no_color: bool,
) -> None:
    """Print a ConfigMap with the histograms of a training table, for `kubectl apply -f -`.

    FILE is CSV (.csv, .tsv; the first line names the columns; an empty cell is a missing value),
    lines of JSON (.jsonl, .ndjson; an object by column each, as captured traffic has them) or
    Parquet (needs the extra "reference"). Rows should stand in the order of time, as the reference
    also learns from them how much the data varies by itself. Only counts leave the file, never
    rows; but the names of categories are in the ConfigMap, so leave out or hash what is secret.

    The ConfigMap is immutable: a new reference gets a new name. Its label mooring.dev/reference is
    a hash over all of it.

    Exit codes: 0 printed; 1 the table cannot be used, and why; 2 wrong usage.
    """
    from mooring.cli.output import data
    from mooring.cli.reference_table import read_table
    from mooring.core.drift.reference import InvalidReference, config_map

    if not _NAME.fullmatch(name) or len(name) > 253:
        raise click.UsageError(
            f"{name!r} cannot name a ConfigMap: small letters, digits, - and . only"
        )
    wanted, excluded, names = _split(features), _split(exclude), _split(categorical)
    outputs = _split(prediction)
    both = sorted(set(wanted) & {*excluded, *outputs, label})
    if both:
        raise click.UsageError(f"{', '.join(both)}: named as a feature and as something else")
    read = {*wanted, *outputs, label} - {""} if wanted else set()
    found = read_table(table, read, names)
    outputs = outputs or tuple(one for one in found.outputs if one not in (*excluded, label))
    present = {column.name for column in found.columns} | set(found.left_out)
    needed = (*outputs, *([label] if label else []))
    # A mistyped name must not let a secret through; of a choice of columns the others are not read.
    for asked in (*needed, *_split(hashed), *(excluded if not wanted else ())):
        if asked not in present:
            raise Failure(f"{table.name} has no column {asked}")
    for asked in needed:
        if asked in found.left_out:
            raise Failure(f"{table.name}, column {asked}: it holds neither numbers nor texts")
    found = _hashed(found, table.name, _split(hashed))
    try:
        built, left_out = assemble(
            found, table.name, wanted, excluded, outputs, label, explicit=bool(wanted), stated=names
        )
        manifest = config_map(built, name, namespace or None)
    except InvalidReference as error:
        raise Failure(f"{table.name}: {error}") from error
    click.echo(data(manifest, output), nl=False)
    _say(built, left_out, no_color)


def _hashed(table: TrainingTable, file: str, names: Sequence[str]) -> TrainingTable:
    """The table with the texts of these columns as the collector counts them."""
    columns = []
    for column in table.columns:
        if column.name not in names:
            columns.append(column)
            continue
        if column.texts is None:
            raise Failure(
                f"{file}, column {column.name}: only texts can be hashed; say --categorical "
                f"{column.name} if its numbers are names"
            )
        texts = tuple(None if one is None else digest(one) for one in column.texts)
        columns.append(replace(column, texts=texts))
    return replace(table, columns=tuple(columns))


def digest(text: str) -> str:
    """What the collector puts in the place of a hashed feature's text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _split(values: Sequence[str]) -> tuple[str, ...]:
    """``a,b`` and ``-x a -x b`` alike."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def assemble(
    table: TrainingTable,
    file: str,
    features: Sequence[str],
    exclude: Sequence[str],
    outputs: Sequence[str],
    label: str,
    *,
    explicit: bool,
    stated: Sequence[str] = (),
) -> tuple[Reference, tuple[str, ...]]:
    """The reference of a table, and the columns that were left out with the reason.

    ``explicit``: the features were named, so one that cannot be watched is a Failure. ``stated``
    are said to be categories, even if they look like dates.
    """
    from mooring.core.drift.health import Expectations
    from mooring.core.drift.reference import Reference

    columns = {column.name: column for column in table.columns}
    chosen = features or [
        name for name in columns if name not in exclude and name not in outputs and name != label
    ]
    left_out = [f"{name} (neither numbers nor texts)" for name in table.left_out]
    kept: list[FeatureReference] = []
    for name in chosen:
        why = _unwatchable(columns[name]) or (_dates(columns[name]) if name not in stated else None)
        if why and explicit:
            raise Failure(f"{file}, column {name}: {why}")
        if why:
            left_out.append(f"{name} ({why})")
        else:
            kept.append(_counted(columns[name]))
    answers = []
    for name in outputs:
        why = _unwatchable(columns[name])
        if why:
            raise Failure(f"{file}, column {name}: {why}")
        answers.append(_counted(columns[name]))
    calibration = None
    if label:
        if not outputs:
            raise click.UsageError("--label needs --prediction: it says what a score has meant")
        calibration = _calibrated(file, columns[outputs[0]], answers[0], columns[label])
    found = Reference(
        features=tuple(kept),
        outputs=tuple(answers),
        calibration=calibration,
        source={"file": file, "rows": table.rows},
        expectations=Expectations().to_json(),
    )
    return found, tuple(left_out)


def _unwatchable(column: Column) -> str | None:
    """Why nothing can be said about a column, or None."""
    import numpy as np

    from mooring.core.drift.building import MOST_CATEGORIES

    if len(column.name) > _LONGEST_NAME:
        return f"its name is longer than the {_LONGEST_NAME} characters that status can hold"
    if column.numbers is not None:
        return None if np.isfinite(column.numbers).any() else "it holds no finite number"
    if column.texts is None:
        return "more than 100,000 different texts: an identifier or free text"
    known = [text for text in column.texts if text is not None and text != _UNSEEN]
    if not known:
        return "it is empty"
    if max(map(len, known)) > _LONGEST_TEXT:
        return f"it holds texts of more than {_LONGEST_TEXT} characters: free text"
    distinct = len(set(known))
    if distinct > MOST_CATEGORIES and distinct > _IDENTIFIER * len(known):
        return f"{distinct} different texts in {len(known)} rows: an identifier or free text"
    return None


def _dates(column: Column) -> str | None:
    """Why a column of dates is none to watch: tomorrow's are in no reference."""
    known = {text for text in column.texts or () if text is not None}
    if known and all(_DATE.fullmatch(text) for text in known):
        return f"it holds dates; say --categorical {column.name} to watch them as names"
    return None


def _counted(column: Column) -> FeatureReference:
    from mooring.core.drift.building import categorical_grid, numeric_grid
    from mooring.core.drift.reference import feature_reference

    if column.numbers is not None:
        grid = numeric_grid(column.name, column.numbers)
        return feature_reference(grid, column.numbers, column.type)
    texts = column.texts or ()
    listed = [text for text in texts if text != _UNSEEN]
    return feature_reference(categorical_grid(column.name, listed), texts, column.type)


def _calibrated(file: str, score: Column, answer: FeatureReference, label: Column) -> Calibration:
    import numpy as np

    from mooring.core.drift.reference import Calibration

    if score.numbers is None:
        raise Failure(f"{file}, column {score.name}: scores must be numbers to be calibrated")
    if (
        label.numbers is None
        or not np.isin(label.numbers[np.isfinite(label.numbers)], (0.0, 1.0)).all()
    ):
        raise Failure(
            f"{file}, column {label.name}: labels must be 0 or 1, or empty; "
            f"those of a regression are left out (--exclude {label.name})"
        )
    known = np.isfinite(label.numbers)
    cells = answer.grid.numeric_cells(score.numbers)
    size = answer.grid.cells
    positive = known & (label.numbers == 1)
    return Calibration(
        output=score.name,
        labelled=np.bincount(cells[known], minlength=size).astype(np.float64),
        positives=np.bincount(cells[positive], minlength=size).astype(np.float64),
    )


def _say(built: Reference, left_out: Sequence[str], no_color: bool) -> None:
    """On standard error: what is watched, and what is not."""
    from rich.console import Console

    say = Console(stderr=True, no_color=no_color or None, highlight=False, markup=False)
    rows = int(built.source["rows"]) if built.source else 0
    answers = f", {len(built.outputs)} outputs" if built.outputs else ""
    say.print(
        f"{len(built.features)} features{answers}, {rows} rows, "
        f"{len(built.to_text().encode()) / 1024:.0f} KiB, hash {built.hash}",
        soft_wrap=True,
    )
    if rows < _FEW:
        say.print(
            f"{rows} rows are few: a reference should hold at least 30 times as many as a window",
            style="yellow",
            soft_wrap=True,
        )
    known = built.calibration
    if known is not None:
        say.print(
            f"what {known.output} means is learnt from {known.labelled.sum():.0f} labels: of rows "
            "that the model was trained on they promise more than it will keep",
            soft_wrap=True,
        )
    for one in left_out:
        say.print(f"left out: {one}", style="yellow", soft_wrap=True)
