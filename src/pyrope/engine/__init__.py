"""Vector engines: exact scan and graphs behind one protocol, attribute filters, the executor."""

import pyrope.native_threads  # noqa: F401 - before NumPy and FAISS
from pyrope.engine.kernels import init_worker_thread

__all__ = ["init_worker_thread"]
