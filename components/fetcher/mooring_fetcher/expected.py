"""The digest that a model must have: the spec's, and the one that this revision was pinned to."""

from __future__ import annotations

from mooring_fetcher.digest import parse_digest
from mooring_fetcher.failure import PermanentFailure


def one_digest(declared: str | None, pinned: str | None) -> str | None:
    """The digest to expect, checked for contradiction before anything is fetched."""
    stated = parse_digest(declared or "", "spec.model.digest (--digest)")
    fixed = parse_digest(pinned or "", "The revision's pinned digest")
    if stated and fixed and stated != fixed:
        raise PermanentFailure(
            f"spec.model.digest is {stated}, but this revision was pinned to {fixed}: the two "
            "contradict each other, so nothing is fetched; apply the digest that is meant."
        )
    return stated or fixed


def verify(found: str, declared: str | None, pinned: str | None, where: str) -> None:
    """Raises PermanentFailure unless the digest is the one that was asked for."""
    stated, fixed = (declared or "").strip(), (pinned or "").strip()
    if stated and found != stated:
        raise PermanentFailure(
            f"The bytes behind {where} have the digest {found}, but spec.model.digest is "
            f"{stated}: they were replaced after the digest was taken, or the digest belongs to "
            "another model; compare with `mooring digest` and apply the one that is meant."
        )
    if fixed and found != fixed:
        raise PermanentFailure(
            f"The bytes behind {where} changed since this revision was pinned: they have the "
            f"digest {found}, the revision was pinned to {fixed}; apply a new URI, or the verb "
            "restart to take the new bytes through a rollout."
        )
