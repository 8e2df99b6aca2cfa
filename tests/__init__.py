"""The tests, and how many threads they run on: said here, before anything imports torch.

Two test processes and the services that they start share the processor. OpenMP's threads, by
default one per core in every process, would spin for each other's turn on cores that are taken.
A test about threads sets its own number.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Without a GPU, Triton's kernels are interpreted. Read when Triton is imported, which torch may do.
if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")
