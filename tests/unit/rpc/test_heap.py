"""What the C library keeps of memory that was freed."""

import ctypes
import os
import subprocess
import sys

import pytest

from rpc import heap
from rpc.control_groups import available_cores

LIBC = ctypes.CDLL(None)
NUM_BYTES = 2 * heap.MAPPED_BYTES
NUM_THREADS = 4 * available_cores()

# In processes of their own: what is set here holds for all of them.
BLOCKS = f"""
import ctypes
from rpc import heap

class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Mallinfo
heap.keep_small()
before = libc.mallinfo2().hblks
libc.free(libc.malloc({NUM_BYTES}))
libc.malloc({NUM_BYTES})
print(libc.mallinfo2().hblks - before)
"""

HEAPS = f"""
import ctypes, threading
from rpc import heap

libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
heap.keep_small()
together = threading.Barrier({NUM_THREADS})

def take():
    libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=take) for _ in range({NUM_THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, libc.fdopen(1, b"w"))
libc.fflush(None)
"""

pytestmark = pytest.mark.skipif(
    not hasattr(LIBC, "mallinfo2"), reason="Only glibc says how much is mapped."
)


def printed(program: str, **variables: str) -> str:
    command = [sys.executable, "-c", program]
    environment = os.environ | variables
    return subprocess.run(command, env=environment, stdout=-1, check=True, text=True).stdout


def num_mapped(**variables: str) -> int:
    """Returns how many large blocks are mapped where one was freed and one is in use."""
    return int(printed(BLOCKS, **variables))


def num_heaps(**variables: str) -> int:
    """Returns how many heaps there are after many threads took small blocks."""
    return printed(HEAPS, **variables).count("<heap nr=")


def test_a_large_block_stays_out_of_the_heap_also_after_one_was_freed():
    assert num_mapped() == 1


def test_there_are_no_more_heaps_than_cores():
    assert num_heaps() <= available_cores()


def test_what_the_operator_has_set_holds():
    assert num_mapped(MALLOC_MMAP_THRESHOLD_=str(2 * NUM_BYTES)) == 0
    assert num_heaps(MALLOC_ARENA_MAX=str(NUM_THREADS)) > available_cores()
