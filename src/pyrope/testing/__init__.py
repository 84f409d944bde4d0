"""Helpers for tests, shipped so that users can test against Pyrope too."""
