"""What can go wrong, for the two people who can mend it."""

from __future__ import annotations


class ConfigurationError(Exception):
    """The collector cannot start; the message is one sentence for the pod's last words."""


class UnreadableBody(Exception):
    """A body that is not of the protocol; the message says why, without any of its values."""


class OversizedBody(UnreadableBody):
    """A body that is of the protocol, and of more rows than are read in one go."""
