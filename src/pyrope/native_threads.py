"""How native libraries may use threads. To be imported before NumPy and FAISS, by whoever serves.

Not by the package itself: a program that only uses `pyrope.client` has threads of its own.
"""

import os

# A process that is forked (to save a graph) while a thread is inside a matrix product of a
# multi-threaded OpenBLAS leaves that thread waiting for ever. The engines bring their own
# parallelism, so one thread a product is also what they want.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# FAISS' OpenMP threads, which only build graphs, are to sleep when they have nothing to do.
# Spinning, they take the processors from the searches.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
