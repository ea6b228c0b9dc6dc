"""Flow that comes with the data instead of from a network."""

from torch import Tensor


def given_flows(clip: Tensor, flows: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Checks the flows that a caller gives with a clip.

    Args:
        clip: (n, t, 3, h, w).
        flows: (forward, backward), each (n, t - 1, 2, h, w), see
            :func:`iart_plugin.flow.clip_flows`.

    Returns:
        The same pair.

    Raises:
        ValueError: if it is not a pair, or a flow's size is not the clip's.
    """
    if not isinstance(flows, tuple | list) or len(flows) != 2:
        raise ValueError("flows must be a pair (forward, backward) of tensors (n, t - 1, 2, h, w)")
    n, t, _, h, w = clip.shape
    for name, flow in zip(("forward", "backward"), flows, strict=True):
        if flow.shape != (n, t - 1, 2, h, w):
            raise ValueError(
                f"{name} flow is {tuple(flow.shape)}, but a clip of {tuple(clip.shape)} "
                f"needs {(n, t - 1, 2, h, w)}"
            )
    return flows[0], flows[1]
