"""One thread for every test and the scripts they start: tiny networks gain nothing from more, and two threads beside
another busy process wait for each other (seen: 50 times slower)."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported, after this file
