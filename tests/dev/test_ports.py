from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mooring_dev import ports
from mooring_dev.errors import DevError


@pytest.fixture(autouse=True)
def _own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "run_root", lambda: tmp_path)


def test_claimed_ports_can_be_bound() -> None:
    claim = ports.claim(3)
    assert len(set(claim.ports)) == 3
    assert all(ports.is_free(port) for port in claim.ports)
    claim.release()


def test_two_claims_never_share_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_candidates", lambda: iter(range(29990, 29998)))
    first, second = ports.claim(3), ports.claim(3)
    assert set(first.ports).isdisjoint(second.ports)
    first.release()
    second.release()


def test_a_released_port_is_given_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_candidates", lambda: iter([29998]))
    first = ports.claim(1)
    first.release()
    second = ports.claim(1)
    assert second.ports == first.ports
    second.release()


def test_a_port_that_a_server_listens_on_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        busy = server.getsockname()[1]
        monkeypatch.setattr(ports, "_candidates", lambda: iter([busy]))
        with pytest.raises(DevError, match="No 1 free TCP ports"):
            ports.claim(1)


def test_claims_are_below_the_range_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert lowest > ports.LAST_PORT
