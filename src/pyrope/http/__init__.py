"""The control plane: what the `VECTOR.*` commands administer, over HTTP; see docs/http.md.

To import and to make it takes 0.25 s and 15 MB: a server imports `control_plane` at its start, and
the rest when it is to listen.
"""
