"""What a file does not say of where its PromQL will be asked, so that it is read as there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mooring.api.modeldeployment import ModelDeployment

#: A name of the same form: a file does not know its revision.
REVISION: Final = "bcdfghjklm"
_NAMED: Final = re.compile(r"""\bnamespace\s*=\s*["'`]([a-z0-9][-a-z0-9]*)["'`]""")


def namespace_of(resource: ModelDeployment) -> str:
    """A file without a namespace may be applied to that which its queries name, but to one only."""
    if resource.metadata.namespace:
        return resource.metadata.namespace
    queries = _queries(resource)
    return next((found[1] for query in queries if (found := _NAMED.search(query))), "default")


def _queries(resource: ModelDeployment) -> Iterator[str]:
    spec = resource.spec
    for metric in spec.analysis.metrics or () if spec.analysis else ():
        if metric.prometheus is not None:
            yield metric.prometheus.query
    for trigger in spec.retraining.triggers or () if spec.retraining else ():
        if trigger.new_data is not None:
            yield trigger.new_data.query
