"""Drift side by side: this project, Evidently, NannyML and alibi-detect on the same rows.

    PYTHONPATH=.:dev:operator python -m bench.drift

installs each peer from its hashed lock into an environment of its own under the cache folder, on
first use, by that machine's own pip and whatever index it trusts.
"""
