"""A Prometheus of the fault runs: a value for each revision, and one answer that goes wrong.

It stands where real ones stand, behind HTTP, and what it misbehaves by is tests.faults
.prometheus_proxy. What judging by counters makes of faults is shown in tests/adapters and
tests/core/judge; here it is shown that what is decided goes by the evidence, whatever else fails.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from tests.faults.history import Happening
from tests.faults.prometheus_proxy import Fault as Wrong
from tests.faults.prometheus_proxy import PrometheusProxy, vector
from tests.faults.proxy import Proxy

from mooring.core import kinds
from mooring.settings import Prometheus

#: So many values in a row decide, and so high a value is still good.
CONSECUTIVE = 3
LIMIT = 0.9
GOOD, BAD = 0.5, 0.99
_SECOND = timedelta(seconds=1)
_PREFIX = "query-"
ANALYSIS = {
    "metrics": [
        {
            "name": "score",
            "prometheus": {
                "query": 'score{revision="{{ revision }}"}',
                "max": LIMIT,
                "consecutive": CONSECUTIVE,
            },
        }
    ]
}


@dataclass
class Measuring:
    """Answers queries about revisions. ``good`` counts the good answers that arrived whole.

    ``bad``: nothing good is said of any revision that was not known by then. Of a revision that
    ``takes`` no requests nothing is known, as it is with a real one.
    """

    proxy: Proxy
    takes: Callable[[str], bool]
    server: PrometheusProxy = field(default_factory=PrometheusProxy)
    good: Counter[str] = field(default_factory=Counter)
    known: set[str] = field(default_factory=set)
    bad: bool = False

    def settings(self) -> Prometheus:
        """What the operator is told."""
        return Prometheus(
            url=self.server.url, interval=_SECOND, timeout=_SECOND, connect_timeout=_SECOND
        )

    def answer(self, text: str) -> None:
        """Decides what becomes of the next answer."""
        found = re.search(r'revision="([a-z0-9]+)"', text)
        revision = found[1] if found else ""
        if not self.takes(revision):
            self.server.fault = Wrong.EMPTY
            return
        what = self.proxy.strike(self.proxy.count("query", f"Prometheus {revision}"))
        self.server.fault = Wrong(what.removeprefix(_PREFIX)) if what else None
        good = not self.bad or revision in self.known
        self.known |= set() if self.bad else {revision}
        self.good[revision] += good and what is None
        self.server.answer = vector(({}, str(GOOD if good else BAD)))

    def breaches(self, history: Iterable[Happening]) -> Iterator[str]:
        """I5, by what was really answered: promoted on fewer good answers than it takes."""
        for revision in promoted(history)[1:]:
            if self.good[revision] < CONSECUTIVE:
                yield f"I5: {revision} was promoted after {self.good[revision]} good answers"


def promoted(history: Iterable[Happening]) -> list[str]:
    """Revisions in the order in which they were promoted."""
    found: dict[str, int] = {}
    for happening in history:
        meta = happening.obj["metadata"]
        number = (meta.get("annotations") or {}).get(kinds.ANNOTATION_PROMOTION)
        if happening.kind == kinds.CONTROLLER_REVISION.name and number is not None:
            found.setdefault(str(meta["labels"][kinds.LABEL_REVISION]), int(number))
    return sorted(found, key=lambda revision: found.get(revision, math.inf))
