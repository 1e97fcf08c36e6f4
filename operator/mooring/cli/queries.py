"""Free PromQL of a file, read as the operator will read it before it asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mooring.api.modeldeployment import ModelDeployment

#: A name of the same form: a file does not know its revision.
_REVISION: Final = "bcdfghjklm"
_NAMED: Final = re.compile(r"""\bnamespace\s*=\s*["'`]([a-z0-9][-a-z0-9]*)["'`]""")


def query_problems(resource: ModelDeployment) -> Iterator[tuple[str, str]]:
    """The path of each query that would never be sent, and what is wrong with it and where."""
    from mooring.core.promql import BadQuery, Bound, prepare

    if resource.spec.analysis is None:
        return
    for index, metric in enumerate(resource.spec.analysis.metrics):
        if metric.prometheus is None:
            continue
        query = metric.prometheus.query
        namespace = resource.metadata.namespace or _namespace_of(query)
        try:
            prepare(query, Bound(namespace, resource.metadata.name, _REVISION))
        except BadQuery as error:
            yield f"spec.analysis.metrics[{index}].prometheus.query", str(error)


def _namespace_of(query: str) -> str:
    """A file without a namespace may be applied to that which its query names."""
    named = _NAMED.search(query)
    return named[1] if named else "default"
