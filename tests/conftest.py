"""One thread for each process of the tests, set before PyTorch is imported.

The networks are tiny, and on cores that others use too, threads that wait for each other make
them a hundred times slower.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
