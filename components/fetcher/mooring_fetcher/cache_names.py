"""What a file is called in the cache of its node: something that only those know who may read it.

The cache cannot ask a store who may read what, and a model's digest is no secret: it stands in
status and in Git. So the name of a file is derived from the credentials of whoever fetches it, and
from what fixes its bytes. Who can say the name holds credentials that could read these bytes when
they were fetched; who holds other credentials, or none, cannot say it.

A fetch without a secret of its own has no names: that a store answers without credentials may be
for reasons that the cache does not see (a network, a role that the pod was given).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field

from mooring_fetcher.blobs import MIN_BLOB
from mooring_fetcher.credentials import Credentials
from mooring_fetcher.store import RemoteFile
from mooring_fetcher.uri import ModelUri

_SALT = b"mooring node cache 1"
_SECRET = re.compile(r".{8,}", re.DOTALL)
_UNGUESSABLE = {
    "AWS_SECRET_ACCESS_KEY": _SECRET,
    "awsSecretAccessKey": _SECRET,
    "AZURE_STORAGE_KEY": _SECRET,
    "AZURE_STORAGE_ACCESS_KEY": _SECRET,
    "AZURE_CLIENT_SECRET": _SECRET,
    "HF_TOKEN": _SECRET,
    "HUGGING_FACE_HUB_TOKEN": _SECRET,
    "MLFLOW_TRACKING_TOKEN": _SECRET,
    "MLFLOW_TRACKING_PASSWORD": _SECRET,
    "token": _SECRET,
    "password": _SECRET,
    "MOORING_CACHE_KEY": re.compile(r".{16,}", re.DOTALL),
    # Files and strings that need not hold a secret.
    "AZURE_STORAGE_SAS_TOKEN": re.compile(r"sig=.{8,}"),
    "AZURE_STORAGE_CONNECTION_STRING": re.compile(
        r"(?:AccountKey|SharedAccessSignature)=.{8,}", re.IGNORECASE
    ),
    "gcloud-application-credentials.json": re.compile(r'"private_key"\s*:\s*"[^"]{8,}'),
    ".dockerconfigjson": re.compile(
        r'"(?:auth|password|identitytoken|registrytoken)"\s*:\s*"[^"]{8,}'
    ),
}
"""What of a Secret only those know who were given it. Stores let people choose passwords of eight
characters."""


@dataclass(frozen=True)
class CacheNames:
    """The names that one fetch may use. Files of other stores or buckets never share one."""

    key: bytes = field(repr=False)
    place: tuple[str, ...]

    @staticmethod
    def of(uri: ModelUri, credentials: Credentials) -> CacheNames | None:
        """None where the Secret holds nothing that others could not know."""
        if not any(_unguessable(key, value) for key, value in credentials.values):
            return None
        held = json.dumps(sorted(credentials.values)).encode()
        # Passwords may be guessed, and the cache would not count the tries: so each try costs
        # some 50 ms and 16 MiB.
        key = hashlib.scrypt(held, salt=_SALT, n=1 << 14, r=8, p=1, dklen=32)
        # The endpoint is among the values. The path is the file's to add.
        return CacheNames(key, (uri.scheme, uri.host, uri.qualifier))

    def of_file(self, file: RemoteFile) -> str | None:
        """64 hexadecimal digits; None for what has no version, no size, or is not worth it."""
        if file.version is None or file.size is None or file.size < MIN_BLOB:
            return None
        # For the same reason a version alone would not do: an ETag need not cover the name.
        parts = (*self.place, file.key, file.version, str(file.size))
        return hmac.new(self.key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def _unguessable(key: str, value: str) -> bool:
    pattern = _UNGUESSABLE.get(key)
    return pattern is not None and pattern.search(value) is not None
