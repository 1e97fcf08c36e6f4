"""Mooring: a Kubernetes operator that keeps machine-learning models from drifting."""

__version__ = "0.1.0"
