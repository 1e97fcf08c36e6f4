"""TLS to Prometheus: only who holds a certificate of the configured authority is believed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.faults.prometheus_proxy import Fault, PrometheusProxy

from mooring.adapters.prometheus import Prometheus
from mooring.adapters.prometheus_access import Access
from mooring.core.answers import Answer, NoAnswer, Reason
from mooring_dev.certificates import Authority

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.ensure(tmp_path_factory.mktemp("authority"))


def context(authority: Authority, host: str = "127.0.0.1") -> ssl.SSLContext:
    pair = authority.server(f"server-{host}", [host])
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(pair.certificate, pair.key)
    return found


@pytest.fixture
def proxy(authority: Authority) -> Iterator[PrometheusProxy]:
    with PrometheusProxy(context=context(authority)).run() as running:
        yield running


async def asked(url: str, **changes: Any) -> Answer | NoAnswer:
    asking = Prometheus(replace(Access(url, deadline=5.0, connect=2.0), **changes))
    try:
        return await asking.query("x")
    finally:
        await asking.close()


async def test_a_certificate_of_the_authority_is_believed(
    proxy: PrometheusProxy, authority: Authority
) -> None:
    assert isinstance(await asked(proxy.url, ca_file=authority.certificate), Answer)


async def test_a_certificate_of_nobody_known_is_not(proxy: PrometheusProxy, tmp_path: Path) -> None:
    other = Authority.ensure(tmp_path / "other")
    for changes in ({}, {"ca_file": other.certificate}):
        found = await asked(proxy.url, **changes)
        assert isinstance(found, NoAnswer)
        assert (found.reason, "caFile" in found.message) == (Reason.TLS, True)
    assert proxy.seen == []


async def test_a_certificate_for_another_name_is_not_believed(authority: Authority) -> None:
    with PrometheusProxy(context=context(authority, "other.example")).run() as proxy:
        found = await asked(proxy.url, ca_file=authority.certificate)
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.TLS


async def test_without_verification_anything_is_believed_without_a_warning_each_time(
    proxy: PrometheusProxy, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(await asked(proxy.url, verify=False), Answer)
    assert len([r for r in caplog.records if "insecureSkipVerify" in r.message]) == 1


async def test_an_own_certificate_is_shown_to_a_prometheus_that_asks(authority: Authority) -> None:
    asks = context(authority)
    asks.verify_mode = ssl.CERT_REQUIRED
    asks.load_verify_locations(authority.certificate)
    pair = authority.client("mooring", "mooring")
    with PrometheusProxy(context=asks).run() as proxy:
        known = {"ca_file": authority.certificate}
        shown = {**known, "client_certificate": (pair.certificate, pair.key)}
        assert isinstance(await asked(proxy.url, **shown), Answer)
        refused = await asked(proxy.url, **known)
        assert isinstance(refused, NoAnswer)
        assert refused.reason in (Reason.TLS, Reason.REFUSED)


async def test_a_file_that_is_missing_is_no_crash(proxy: PrometheusProxy, tmp_path: Path) -> None:
    found = await asked(proxy.url, ca_file=tmp_path / "none.crt")
    assert isinstance(found, NoAnswer)


async def test_tls_where_none_is_spoken() -> None:
    with PrometheusProxy().run() as plain:
        found = await asked(plain.url.replace("http:", "https:"), deadline=1.0)
    assert isinstance(found, NoAnswer)
    # By what the server makes of the greeting.
    assert found.reason in (Reason.TLS, Reason.REFUSED, Reason.TIMEOUT)


async def test_a_hang_behind_tls_ends_at_the_deadline(
    proxy: PrometheusProxy, authority: Authority
) -> None:
    proxy.fault = Fault.DRIP_HEADERS
    found = await asked(proxy.url, ca_file=authority.certificate, deadline=0.7, pause=30.0)
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.TIMEOUT
