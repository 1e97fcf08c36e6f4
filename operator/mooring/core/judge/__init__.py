"""Judging a candidate: sequential tests on the router's counts, with a stated chance of error.

:func:`judge` takes all rollouts of one tick; :func:`judge_one` is a batch of one. What goes in is
described in :mod:`mooring.core.judge.readings` and :mod:`mooring.core.judge.settings`, what comes
out in :mod:`mooring.core.judge.verdicts`; how it works, for users, in docs/judging.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mooring.core.judge.readings import Counters, Pods, Scrape, Tick, Weights
from mooring.core.judge.settings import (
    Analysis,
    ErrorRate,
    Latency,
    Metric,
    PredictionShift,
    Threshold,
    problems,
)
from mooring.core.judge.verdicts import Estimate, MetricJudgement, SplitCheck, Verdict, overall

if TYPE_CHECKING:
    from mooring.core.judge.batch import Judgement, Subject, join, judge, judge_one
    from mooring.core.judge.dispersion import Dispersion, dispersion_of, over_dispersion
    from mooring.core.judge.memory import Failure, State

__all__ = [
    "Analysis",
    "Counters",
    "Dispersion",
    "ErrorRate",
    "Estimate",
    "Failure",
    "Judgement",
    "Latency",
    "Metric",
    "MetricJudgement",
    "Pods",
    "PredictionShift",
    "Scrape",
    "SplitCheck",
    "State",
    "Subject",
    "Threshold",
    "Tick",
    "Verdict",
    "Weights",
    "dispersion_of",
    "join",
    "judge",
    "judge_one",
    "over_dispersion",
    "overall",
    "problems",
]

#: What computes comes when it is first asked for: numpy and scipy cost 33 MiB and half a second,
#: which an operator that judges nothing, and a command that only reads settings, should not pay.
_LATER: Final = {
    "batch": ("Judgement", "Subject", "join", "judge", "judge_one"),
    "dispersion": ("Dispersion", "dispersion_of", "over_dispersion"),
    "memory": ("Failure", "State"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
