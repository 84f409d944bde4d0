"""Pyrope: a vector cache server that speaks the Redis protocol."""

import os
from importlib.metadata import version

# Before anything imports NumPy: a process that is forked (to save a graph) while a thread is inside
# a matrix product of a multi-threaded OpenBLAS leaves that thread waiting for ever. The engines
# bring their own parallelism, so one thread a product is also what they want.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = version("pyrope-server")
