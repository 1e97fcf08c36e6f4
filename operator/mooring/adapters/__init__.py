"""Adapters: the only code that speaks to other servers."""
