"""What all tests have in common: one thread for each process, and quick garbage collections.

The networks are tiny, and on cores that others use too, threads that wait for each other make
them a hundred times slower. So it is set before PyTorch is imported.
"""

import gc
import importlib
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """What has been imported by now is never garbage: a collection need not look through it."""
    importlib.import_module("torch._dynamo")  # as the first optimizer does
    gc.collect()
    gc.freeze()
