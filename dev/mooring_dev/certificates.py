"""A certificate authority and the key pairs that a Kubernetes control plane needs.

Elliptic-curve keys, because making one takes under a millisecond where RSA takes a tenth of a
second, and a control plane needs a dozen.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mooring_dev import files

_VALID = dt.timedelta(days=365)
_BACKDATE = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class KeyPair:
    """Paths of a PEM certificate and its private key."""

    certificate: Path
    key: Path


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _name(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _VALID)
    )


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder, which signs what a cluster needs."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """PEM certificate that clients and servers trust."""
        return self.directory / "ca.crt"

    @property
    def service_account_key(self) -> Path:
        """Private key that signs service account tokens."""
        return self.directory / "service-account.key"

    @staticmethod
    def ensure(directory: Path) -> Authority:
        """Make the authority in ``directory`` unless it is there and good for another 30 days."""
        authority = Authority(directory)
        directory.mkdir(parents=True, exist_ok=True)
        if authority._usable():
            return authority
        for stale in directory.glob("*.crt"):
            stale.unlink()
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("mooring-dev-ca")
        signed = (
            _builder(name, name)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_ca_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        service_account = ec.generate_private_key(ec.SECP256R1())
        files.write(authority.service_account_key, _private_pem(service_account))
        files.write(directory / "ca.key", _private_pem(key))
        files.write(
            authority.certificate, signed.public_bytes(serialization.Encoding.PEM), mode=0o644
        )
        return authority

    def _usable(self) -> bool:
        needed = (self.certificate, self.directory / "ca.key", self.service_account_key)
        if not all(path.exists() for path in needed):
            return False
        loaded = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        return loaded.not_valid_after_utc - dt.datetime.now(dt.UTC) > dt.timedelta(days=30)

    def client(self, file: str, user: str, groups: Sequence[str] = ()) -> KeyPair:
        """Key pair that authenticates as ``user`` in ``groups``; made once, kept as ``file``."""
        return self._issue(file, _name(user, groups), (), ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, file: str, hosts: Sequence[str]) -> KeyPair:
        """Serving key pair for ``hosts``, which are DNS names or IP addresses."""
        return self._issue(file, _name(file), hosts, ExtendedKeyUsageOID.SERVER_AUTH)

    def _issue(
        self, file: str, subject: x509.Name, hosts: Sequence[str], usage: x509.ObjectIdentifier
    ) -> KeyPair:
        pair = KeyPair(self.directory / f"{file}.crt", self.directory / f"{file}.key")
        if pair.certificate.exists() and pair.key.exists():
            return pair
        ca = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        ca_key = serialization.load_pem_private_key((self.directory / "ca.key").read_bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, ca.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        signed = builder.sign(ca_key, hashes.SHA256())
        files.write(pair.key, _private_pem(key))
        files.write(pair.certificate, signed.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return pair


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
