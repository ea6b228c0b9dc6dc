"""Large results a part at a time."""

from collections.abc import Callable

from torch import Tensor


def in_parts(compute: Callable[[int, int], Tensor], length: int, step: int) -> Tensor:
    """Computes a tensor ``step`` of its second axis at a time, each part written into the result.

    Args:
        compute: ``(begin, end)`` to that part, (n, end - begin, ...).
        length: of the second axis.
        step: of the second axis at once.

    Returns:
        (n, length, ...); ``compute``'s own where one part is enough.
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
