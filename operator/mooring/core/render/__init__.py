"""Renderers: one file per kind of child object, each a pure function to one manifest.

Manifests hold exactly the fields that Mooring wants to own under server-side apply, in the form
in which the API server returns them, so that "nothing to change" can be seen without asking.
"""
