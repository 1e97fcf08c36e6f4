"""Tables and traffic specs as hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mooring.api.traffic_spec import TrafficSpec
from mooring.core.traffic import Backend, BackendPort, Match, Route, Table

PORTS = (BackendPort("http", 8080), BackendPort("grpc", 9000, http2=True))
_HEADER = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,12}\Z")
_VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
_SECONDS = st.sampled_from(["1s", "1500ms", "30s", "10m", "1h30m", "24h"])


@st.composite
def tables(draw: st.DrawFn, first: str = "") -> Table:
    """A route that names only backends, as the core makes them. ``first`` begins all names."""
    names = [f"{first}{name}" for name in ["0a1", "b2c", "9ff", "d"][: draw(st.integers(0, 4))]]
    backends = []
    for name in names:
        ports = draw(st.sampled_from([PORTS, PORTS[:1], PORTS[1:], PORTS[::-1]]))
        host = draw(st.sampled_from(["127.0.0.1", f"fraud-{name}.shop.svc.cluster.local", "::1"]))
        backends.append(Backend(name, host, ports, draw(st.booleans())))
    if not names:
        return Table(Route(), ())
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=len(names) - 1, unique=True)))
    shares = [b - a for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]
    weights = dict(zip(names, shares, strict=False)) if draw(st.booleans()) else {}
    mirrors = draw(st.dictionaries(st.sampled_from(names), st.integers(0, 100)))
    header = st.tuples(_HEADER, _VALUE)
    match = st.builds(
        Match,
        st.sampled_from(names),
        st.lists(header, min_size=1, max_size=3, unique_by=lambda pair: pair[0]).map(tuple),
    )
    route = Route(weights, mirrors, tuple(draw(st.lists(match, max_size=3))))
    return Table(route, tuple(backends))


@st.composite
def traffics(draw: st.DrawFn) -> TrafficSpec:
    fields: dict[str, Any] = {"timeout": draw(_SECONDS), "retries": draw(st.integers(0, 5))}
    affinity = draw(st.sampled_from(["none", "header", "cookie", "lasting cookie"]))
    if affinity == "header":
        fields["sessionAffinity"] = {"header": draw(_HEADER)}
    elif affinity != "none":
        cookie = {"name": draw(_HEADER)}
        if affinity == "lasting cookie":
            cookie["ttl"] = draw(_SECONDS)
        fields["sessionAffinity"] = {"cookie": cookie}
    fields["outlierDetection"] = {
        "consecutiveErrors": draw(st.integers(0, 1000)),
        "interval": draw(_SECONDS),
        "baseEjectionTime": draw(_SECONDS),
        "maxEjectionPercent": draw(st.integers(0, 100)),
    }
    return TrafficSpec.model_validate(fields)
