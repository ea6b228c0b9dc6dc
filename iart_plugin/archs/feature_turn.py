"""Turns a BasicVSR's features without changing what it computes, for :func:`warm_start`.

A branch's features x leave its last residual block and are read by two linear layers, the fusion
and the first convolution of the next frame's pass, after alignment. So the block may as well write
T x if those two are multiplied by T^-1. The block's shortcut passes x on as it is; T - 1, of rank
four here, has to come through its ReLU, by hidden units that are biased so far up that they never
clip. Of 64 units there are always four that give next to nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from iart_plugin.alignment import FlowWarp

RIDGE = 1e-4
"""Share of the mean feature energy added to every direction, so that none is trusted blindly."""

CONTENT = 0.006
"""Root mean square of the content in the encodings' plane, where one pixel's step is 1."""

FEWEST_UNITS = 16
"""Channels below which a branch is left as it is."""

HEADROOM = 64.0
"""Standard deviations from which a ReLU that passes a direction on would clip it."""


class BranchStatistics(NamedTuple):
    """Measured on one branch of a BasicVSR.

    Attributes:
        mean: (c,) of the branch's features, float64.
        covariance: (c, c) of them.
        last_mean: (c,) of what enters the last residual block.
        last_covariance: (c, c) of it.
        hidden_energy: (c,) mean square of the last block's hidden units.
    """

    mean: Tensor
    covariance: Tensor
    last_mean: Tensor
    last_covariance: Tensor
    hidden_energy: Tensor


def measure_branches(network: nn.Module, clips: Tensor) -> list[BranchStatistics]:
    """Runs the network as the BasicVSR whose weights it has, and measures both branches.

    Args:
        network: an :class:`iart_plugin.archs.IACNN`.
        clips: (n, t, 3, h, w) RGB in [0, 1], t >= 2.

    Returns:
        The backward branch's statistics, and the forward branch's.
    """
    branches = network.branches()
    seen: list[dict[str, list[Tensor]]] = [{"out": [], "last": [], "hidden": []} for _ in branches]
    handles = []
    for branch, maps in zip(branches, seen, strict=True):
        handles.append(branch.register_forward_hook(lambda _, __, y, m=maps: m["out"].append(y)))
        for last in branch.main[2][-1:]:
            handles += (
                last.register_forward_pre_hook(lambda _, x, m=maps: m["last"].append(x[0])),
                last.conv1.register_forward_hook(lambda _, __, y, m=maps: m["hidden"].append(y)),
            )
    own = network.alignment
    network.alignment = FlowWarp()
    try:
        network(clips.float().cpu())
    finally:
        network.alignment = own
        for handle in handles:
            handle.remove()
    return [_statistics(**maps) for maps in seen]


def _statistics(out: list[Tensor], last: list[Tensor], hidden: list[Tensor]) -> BranchStatistics:
    def samples(maps: list[Tensor]) -> Tensor:
        return torch.cat([each.double().transpose(0, 1).flatten(1) for each in maps], 1)

    features = samples(out)
    entering = samples(last) if last else features
    units = samples(hidden).relu() if hidden else features
    return BranchStatistics(
        features.mean(1),
        torch.cov(features),
        entering.mean(1),
        torch.cov(entering),
        units.square().mean(1),
    )


def turn_features(
    network: nn.Module, index: int, measured: BranchStatistics, steps: Tensor
) -> tuple[Tensor, Tensor]:
    """Turns a branch's features so that a given plane holds what the next frame misses least.

    With features x of second moment S, the first convolution's importance Q (its taps' Gram matrix)
    and the plane's axes P (c, 2): E (c, 2) minimises the loss tr(Q E (E' S^-1 E)^-1 E'), F is the
    reading of x along E of least variance and R = P^+ that of the plane. T takes E to P such that
    R T = F, and what was in the plane to where E was; it leaves all else alone.

    Args:
        network: as in :func:`warm_start`; changed in place.
        index: 0 for the backward, 1 for the forward branch.
        measured: the branch's statistics.
        steps: P, float64.

    Returns:
        Mean (c,) and covariance (c, c) of the turned features, float64. Of the features as they
        are, if there is no residual block or too few units to spare four.
    """
    trunk = network.branches()[index]
    channels = len(measured.mean)
    if not len(trunk.main[2]) or channels < FEWEST_UNITS:
        return measured.mean, measured.covariance
    first, last = trunk.main[0], trunk.main[2][-1]
    eye = torch.eye(channels).double()
    read = torch.linalg.pinv(steps)  # R

    # Their second moment: a mean is missed too where it is not that of the clips measured on.
    moment = measured.covariance + torch.outer(measured.mean, measured.mean)
    moment = moment + RIDGE * moment.trace() / channels * eye
    taps = first.weight[:, 3:].double().transpose(0, 1).flatten(1)
    importance = taps @ taps.t()  # Q
    # Q e = loss S^-1 e: with S = L L', L' Q L v = loss v and e = L v.
    root = torch.linalg.cholesky(moment)
    directions = torch.linalg.eigh(root.t() @ importance @ root).eigenvectors[:, :2]
    lost = root @ directions / CONTENT  # E; E' S^-1 E = 1 / CONTENT^2
    reading = CONTENT * torch.linalg.solve_triangular(root, directions.t(), upper=False, left=False)

    # What of P cannot be read by F goes to what of E cannot be read by R, as in a rotation and
    # with the lengths that it has: any other choice is worse conditioned.
    moved = steps - lost @ (reading @ steps)
    place = lost - steps @ (read @ lost)
    place = -_orthogonal(place) @ (_orthogonal(moved).t() @ moved)
    rest = torch.linalg.solve(read @ moved, read - (read @ lost) @ reading)  # reads along moved
    columns = torch.cat((steps - lost, place - moved), 1)
    rows = torch.cat((reading, rest))
    turn = eye + columns @ rows  # T
    back = torch.linalg.inv(turn)
    # Weights of like size on both sides, which training disturbs least.
    scale = (columns.norm(dim=0) / rows.norm(dim=1)).sqrt()
    columns, rows = columns / scale, rows * scale[:, None]

    given = measured.hidden_energy * last.conv2.weight.double().square().sum((0, 2, 3))
    units = given.argsort()[: len(rows)]
    deviation = (rows @ measured.last_covariance @ rows.t()).diagonal().sqrt()
    headroom = (rows @ measured.last_mean).abs() + HEADROOM * deviation
    last.conv1.weight[units] = 0
    last.conv1.weight[units, :, 1, 1] = rows.float()
    last.conv1.bias[units] = headroom.float()
    weight = torch.einsum("ij,jkyx->ikyx", turn, last.conv2.weight.double())
    weight[:, units] = 0
    weight[:, units, 1, 1] = columns
    last.conv2.weight.copy_(weight)
    last.conv2.bias.copy_(turn @ last.conv2.bias.double() - columns @ headroom)

    first.weight[:, 3:] = torch.einsum("ijyx,jk->ikyx", first.weight[:, 3:].double(), back).float()
    own = slice(index * channels, (index + 1) * channels)
    fusion = network.fusion.weight
    fusion[:, own] = (fusion[:, own, 0, 0].double() @ back).float()[..., None, None]
    return turn @ measured.mean, turn @ measured.covariance @ turn.t()


def _orthogonal(columns: Tensor) -> Tensor:
    """The nearest matrix with orthonormal columns."""
    u, _, vh = torch.linalg.svd(columns, full_matrices=False)
    return u @ vh
