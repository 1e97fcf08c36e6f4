"""Runs inside a peer's own environment: judges every case of a folder with its defaults.

    python judge_peer.py evidently FOLDER

It imports nothing of this project. A case is an .npz file; the answer is one JSON object on
standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

#: (reference rows, windows, categorical) → alarms per window and column
Judge = Callable[[Any, Any, bool], list[list[bool]]]


#: A report of Evidently takes .2 s of CPU and .1 s more for every column: it is asked about three.
COLUMNS = {"evidently": 3}


def evidently(reference: Any, windows: Any, categorical: bool) -> list[list[bool]]:
    """DataDriftPreset with its default method and threshold for every column."""
    parts = import_module("evidently")
    presets = import_module("evidently.presets")
    names = _names(reference)
    kind = "categorical_columns" if categorical else "numerical_columns"
    definition = parts.DataDefinition(**{kind: names})
    before = parts.Dataset.from_pandas(_frame(reference, categorical), definition)
    found = []
    for window in windows:
        now = parts.Dataset.from_pandas(_frame(window, categorical), definition)
        answer = parts.Report([presets.DataDriftPreset()]).run(now, before).dict()
        found.append(_evidently_alarms(answer, names))
    return found


def _evidently_alarms(answer: Any, names: list[str]) -> list[bool]:
    """A p-value alarms below its threshold, a distance above it, as the report itself shows it."""
    alarms = {}
    for metric in answer["metrics"]:
        config = metric.get("config", {})
        if not str(config.get("type", "")).endswith("ValueDrift"):
            continue
        method, limit = str(config["method"]), float(config["threshold"])
        score = float(metric["value"])
        alarms[config["column"]] = score < limit if "p_value" in method else score >= limit
    return [bool(alarms[name]) for name in names]


def nannyml(reference: Any, windows: Any, categorical: bool) -> list[list[bool]]:
    """UnivariateDriftCalculator with its defaults; the windows are its chunks."""
    parts, pandas = import_module("nannyml"), import_module("pandas")
    names = _names(reference)
    calculator = parts.UnivariateDriftCalculator(
        column_names=names,
        treat_as_categorical=names if categorical else None,
        chunk_size=len(windows[0]),
    )
    calculator.fit(_frame(reference, categorical))
    rows = pandas.concat([_frame(window, categorical) for window in windows], ignore_index=True)
    table = calculator.calculate(rows).filter(period="analysis").to_df()
    columns = [
        next(c for c in table.columns if c[0] == name and c[-1] == "alert") for name in names
    ]
    return [[bool(one) for one in row] for row in table[columns].to_numpy()]


def alibi_detect(reference: Any, windows: Any, categorical: bool) -> list[list[bool]]:
    """TabularDrift per feature (Kolmogorov–Smirnov, χ² for categories) at its default of .05."""
    drift = import_module("alibi_detect.cd").TabularDrift
    kinds = dict.fromkeys(range(reference.shape[1])) if categorical else None
    detector = drift(reference, categories_per_feature=kinds)
    return [
        [bool(one) for one in detector.predict(window, drift_type="feature")["data"]["is_drift"]]
        for window in windows
    ]


def _names(rows: Any) -> list[str]:
    return [f"f{place}" for place in range(rows.shape[1])]


def _frame(rows: Any, categorical: bool) -> Any:
    frame = import_module("pandas").DataFrame(rows, columns=_names(rows))
    return frame.astype(int).astype(str).radd("c") if categorical else frame


def judged(
    judge: Judge, folder: Path, most: int | None, tell: Callable[[dict[str, Any]], None]
) -> None:
    """All cases of a folder, ``most`` columns of each: alarms and seconds by name.

    A failing case says why. What is known so far is told after every case, so that running out
    of time loses one case and not all of them.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as case:
            name, categorical = str(case["name"]), bool(case["categorical"])
            columns = None if str(case["question"]) == "speed" else most
            reference, windows = case["reference"][..., :columns], case["windows"][..., :columns]
        started = time.perf_counter()
        try:
            if reference.ndim == 3:
                pairs = zip(reference, windows, strict=True)
                alarms = [judge(own, window[None], categorical)[0] for own, window in pairs]
            else:
                alarms = judge(reference, windows, categorical)
        except Exception as error:  # noqa: BLE001  # a peer's failure is a result, not the end
            found[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
            tell(found)
            continue
        found[name] = {"alarms": alarms, "seconds": time.perf_counter() - started}
        print(f"{path.stem}: {found[name]['seconds']:.1f} s", file=sys.stderr, flush=True)
        tell(found)


def main() -> None:
    """Judges the folder that the command line names."""
    warnings.filterwarnings("ignore")
    # None of them may report to its makers from here.
    os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    peer, folder = sys.argv[1], Path(sys.argv[2])
    judges: dict[str, Judge] = {
        "evidently": evidently, "nannyml": nannyml, "alibi-detect": alibi_detect,
    }  # fmt: skip
    # What a peer imports counts as start-up and not as judging.
    import_module({"alibi-detect": "alibi_detect.cd"}.get(peer, peer))

    def tell(found: dict[str, Any]) -> None:
        text = json.dumps({"version": version(peer), "cases": found})
        (folder / f"{peer}.new").write_text(text)
        (folder / f"{peer}.new").rename(folder / f"{peer}.json")

    judged(judges[peer], folder, COLUMNS.get(peer), tell)


if __name__ == "__main__":
    main()
