"""Counts what a model is asked and what it answers, off the path of its requests."""

from __future__ import annotations

__version__ = "0.1.0"
