"""Retraining: when a new model is asked for, what is known of each request, and what comes of it.

Pure. Everything that must not happen twice stands in the ledger, which is an annotation of the
stable revision's ControllerRevision and is written before anything is done.
"""
