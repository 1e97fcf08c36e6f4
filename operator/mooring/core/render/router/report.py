"""Reading what a router pod says it has taken: the body of GET /version.

Envoy answers with lines of ``name: value``, the statistics that ``bootstrap`` names there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_ENDPOINTS = re.compile(
    r"cluster\.([a-z0-9]+)(-(?:a|b|match|shadow))?(?:_[a-z0-9-]+)?\.membership_total"
)
_UPDATES = re.compile(
    r"(?:cluster_manager\.(cds)|http\.[^.]+\.rds\.([^.]+))"
    r"\.(version_text|update_failure|update_rejected)"
)


def report(text: str) -> tuple[str, str]:
    """The version by which the router routes, and what stands in its way, in words.

    The version is that of ``envoy_version`` when the clusters and the routes of every port are of
    it and every cluster can be used; empty otherwise. The problem counts what Envoy has refused
    since it started, so it means something only while a version is awaited: a router that has
    taken what it was told has none that matters.
    """
    versions: dict[str, str] = {}
    refused: dict[str, int] = {}
    for name, value in _lines(text):
        found = _UPDATES.fullmatch(name)
        if found is None:
            continue
        part = "clusters" if found[1] else f"routes of port {found[2]}"
        if found[3] == "version_text":
            versions[part] = value.strip('"')
        else:
            refused[part] = refused.get(part, 0) + _count(value)
    warming = _count(dict(_lines(text)).get("cluster_manager.warming_clusters", "0"))
    problem = "; ".join(
        f"the router has refused {count} update{'s' if count > 1 else ''} of its {part}"
        for part, count in sorted(refused.items())
        if count
    )
    if warming:
        waits = f"{warming} new clusters wait for the first answer of the DNS server"
        return "", "; ".join(filter(None, (problem, waits)))
    agreed = set(versions.values())
    if "clusters" not in versions or len(versions) < 2 or len(agreed) != 1:
        return "", problem
    return agreed.pop(), problem


def endpoints(text: str) -> Mapping[str, int]:
    """How many pods of each revision the router knows, by the revision's name.

    A pod that has become ready is known some seconds later (DNS caches that it was not there), and
    a weight on a revision without a known pod is answered 503: so ask before raising one. It is
    the least over the revision's clusters, but for that of its copies, which looks names up at its
    leisure. Pods that outlier detection keeps out are counted.
    """
    found: dict[str, int] = {}
    for name, value in _lines(text):
        cluster = _ENDPOINTS.fullmatch(name)
        if cluster is None or cluster[2] == "-shadow":
            continue
        revision, count = cluster[1], _count(value)
        found[revision] = min(count, found.get(revision, count))
    return found


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, colon, value = line.partition(": ")
        if colon:
            yield name.strip(), value.strip()


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
