"""Memory that Linux would leave with the process; elsewhere, nothing happens."""

import ctypes
import sys
from mmap import PAGESIZE

import torch

# Linux's MADV_PAGEOUT, which Python does not name.
_PAGEOUT = 21


def return_freed() -> None:
    """Return the memory that was freed to the system, where the C library can do so."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def page_out(weight: torch.Tensor) -> None:
    """Take a weight on the CPU out of memory until it is read again.

    A loaded model's weights are mapped from their file, so Linux can drop their pages and read them
    again. What was changed since goes to swap space if there is any, and stays otherwise.
    """
    if sys.platform == "linux":
        # Pages that other data share are left alone.
        start = -(-weight.data_ptr() // PAGESIZE) * PAGESIZE
        size = (weight.data_ptr() + weight.nbytes) // PAGESIZE * PAGESIZE - start
        if size > 0:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _PAGEOUT)
