"""``{{ model.name }}`` and the few others that a runtime's template may use.

A closed list, so that a template stays readable without knowing the operator, and so that a
typing error is an error and not an empty string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mooring.api.modelruntime import PLACEHOLDERS

_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


class UnknownPlaceholder(ValueError):
    """A template names something that is not in the API's list of placeholders."""


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one rendering, by placeholder name."""

    by_name: Mapping[str, str]

    def fill(self, text: str) -> str:
        """Replaces every placeholder of ``text``; raises :class:`UnknownPlaceholder`."""

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in self.by_name:
                raise UnknownPlaceholder(
                    f"unknown placeholder {{{{ {name} }}}}: use one of "
                    + ", ".join(f"{{{{ {known} }}}}" for known in PLACEHOLDERS)
                )
            return self.by_name[name]

        return _PLACEHOLDER.sub(value, text)


def fill_signal(query: str, *, selector: str, by: str) -> str:
    """A runtime's signal as PromQL, for the pods of ``selector``, grouped by the labels ``by``.

    ``selector`` is what stands between the braces of a PromQL selector, such as
    ``namespace="shop",mooring_dev_revision=~"a|b"``; ``by`` is a list of labels, such as
    ``pod, mooring_dev_revision``. The API has seen to it that the query has both placeholders and
    no other; raises :class:`UnknownPlaceholder` where it has not.
    """
    return Values({"selector": selector, "by": by}).fill(query)
