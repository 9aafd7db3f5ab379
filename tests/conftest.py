"""One thread for every test: the networks are tiny, and threads that wait for each other on a
busy machine cost more than they bring. Set before torch is imported, and for subprocesses too.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
