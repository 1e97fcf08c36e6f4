"""What of ``spec.analysis`` could not be carried out: the operator would answer with Stalled.

It is found here as it is there (:mod:`mooring.core.analysis`), PromQL by the parser among it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mooring.cli.lint_query import REVISION, namespace_of

if TYPE_CHECKING:
    from mooring.api.modeldeployment import ModelDeployment

#: A file does not know what its runtime can be asked: perhaps everything.
_ANY: Final = "sum by ({{ by }}) (any{{{ selector }}})"


def analysis_problems(resource: ModelDeployment) -> Iterator[tuple[str, str]]:
    """The path of each metric that cannot be judged, and why: in a query with the place."""
    if resource.spec.analysis is None:
        return
    from mooring.core.analysis import standard
    from mooring.core.observed import RenderSettings
    from mooring.core.signals import Signals

    found = standard(
        resource.spec,
        RenderSettings(prometheus=True),
        namespace=namespace_of(resource),
        name=resource.metadata.name,
        revision=REVISION,
        signals=Signals(_ANY, _ANY, _ANY),
    )
    for gap in found.gaps if found is not None else ():
        yield _placed(resource, gap.reason, gap.message.removeprefix("spec.analysis: "))


def _placed(resource: ModelDeployment, reason: str, message: str) -> tuple[str, str]:
    """The message without the metric that it names, and the path of that metric instead."""
    metrics = resource.spec.analysis.metrics if resource.spec.analysis else ()
    for index, metric in enumerate(metrics):
        start = f"metric {metric.name}: "
        if message.startswith(start):
            query = ".prometheus.query" if reason == "InvalidQuery" else ""
            return f"spec.analysis.metrics[{index}]{query}", message.removeprefix(start)
    return "spec.analysis", message
