"""Computes large results one part at a time, which needs less memory."""

from collections.abc import Callable

from torch import Tensor


def in_parts(compute: Callable[[int, int], Tensor], length: int, step: int) -> Tensor:
    """Computes a tensor in parts along its second axis, and writes each into the result.

    Args:
        compute: a function of ``(begin, end)`` that returns that part, (n, end - begin, ...).
        length: length of the second axis.
        step: the most elements of the second axis in a part.

    Returns:
        (n, length, ...).
    """
    if step >= length:
        return compute(0, length)
    first = compute(0, step)
    whole = first.new_empty(first.shape[0], length, *first.shape[2:])
    whole[:, :step] = first
    del first
    for begin in range(step, length, step):
        end = min(begin + step, length)
        whole[:, begin:end] = compute(begin, end)
    return whole
