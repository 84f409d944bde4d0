"""Pyrope: a vector cache server that speaks the Redis protocol."""

import os
from importlib.metadata import version

# Before anything imports NumPy: a process that is forked (to save a graph) while a thread is inside
# a matrix product of a multi-threaded OpenBLAS leaves that thread waiting for ever. The engines
# bring their own parallelism, so one thread a product is also what they want.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before anything imports FAISS: its OpenMP threads, which only build graphs, are to sleep when they
# have nothing to do. Spinning, they take the processors from the searches.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = version("pyrope-server")
