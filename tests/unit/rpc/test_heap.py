"""What the C library keeps of memory that was freed."""

import ctypes
import os
import subprocess
import sys

import pytest

from rpc import heap

LIBC = ctypes.CDLL(None)
NUM_BYTES = 2 * heap.MAPPED_BYTES

# In a process of its own: what is set here holds for all of it.
PROGRAM = f"""
import ctypes
from rpc import heap

class Mallinfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Mallinfo
heap.keep_large_blocks_out()
before = libc.mallinfo2().hblks
libc.free(libc.malloc({NUM_BYTES}))
libc.malloc({NUM_BYTES})
print(libc.mallinfo2().hblks - before)
"""

pytestmark = pytest.mark.skipif(
    not hasattr(LIBC, "mallinfo2"), reason="Only glibc says how much is mapped."
)


def num_mapped(**variables: str) -> int:
    """Returns how many large blocks are mapped where one was freed and one is in use."""
    command = [sys.executable, "-c", PROGRAM]
    printed = subprocess.run(command, env=os.environ | variables, stdout=-1, check=True).stdout
    return int(printed)


def test_a_large_block_stays_out_of_the_heap_also_after_one_was_freed():
    assert num_mapped() == 1


def test_what_the_operator_has_set_holds():
    assert num_mapped(MALLOC_MMAP_THRESHOLD_=str(2 * NUM_BYTES)) == 0
