"""Which store serves which scheme: the one line that a new store adds is here."""

from __future__ import annotations

from mooring_fetcher.credentials import Credentials
from mooring_fetcher.failure import PermanentFailure
from mooring_fetcher.store import Store
from mooring_fetcher.uri import ModelUri


def open_store(
    uri: ModelUri, credentials: Credentials, *, expected: str | None, cached: bool = False
) -> Store:
    """The store behind a URI. `expected` is the digest that will be verified, if one is known;
    `cached` says that bytes may come from elsewhere, so that none should be asked for in advance.

    Imports are local: botocore costs a fifth of a second and 20 MiB that https need not pay.
    """
    if uri.scheme == "s3":
        from mooring_fetcher.s3 import S3Store

        return S3Store(uri, credentials, ahead=not cached)
    if uri.scheme == "gs":
        from mooring_fetcher.gs import GsStore

        return GsStore(uri, credentials)
    if uri.scheme == "az":
        from mooring_fetcher.az import AzStore

        return AzStore(uri, credentials)
    if uri.scheme == "hf":
        from mooring_fetcher.hf import HfStore

        return HfStore(uri, credentials)
    if uri.scheme == "oci":
        from mooring_fetcher.oci import OciStore

        return OciStore(uri, credentials, expected=expected)
    if uri.scheme == "mlflow":
        from mooring_fetcher.mlflow import MlflowStore

        return MlflowStore(uri, credentials)
    if uri.scheme in ("https", "http"):
        from mooring_fetcher.https import HttpsStore

        return HttpsStore(uri, credentials, pinned=expected is not None)
    raise PermanentFailure(
        f"{uri.shown} is mounted by the cluster and cannot be read from here: give the path of a "
        "folder."
    )
