"""Recognises the errors by which any device reports that memory ran out."""

import torch

_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad allocation",
    "alloc_failed",  # of cuBLAS and cuDNN, CUBLAS_STATUS_ALLOC_FAILED
    "allocation_failed",  # of cuDNN 9
    # These are reported when there was no memory for a convolution's workspace, or for a handle.
    "unable to find an engine",
    "cublas_status_not_initialized",
    "cudnn_status_not_initialized",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever device, says that memory ran out."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(sign in text for sign in _NO_MEMORY)
