"""Pyrope: a vector cache server that speaks the Redis protocol."""

from importlib.metadata import version

__version__ = version("pyrope-server")
