"""Training and testing of one row at CPU scale, with the same seed, data and steps for all rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.data.augment import FlowAugmentation
from iart_plugin.weight_files import save_whole

from .scale import Scale

CHARBONNIER_EPS = 1e-6  # added to the squared difference of values in [0, 1]


def train(
    network: AlignmentStudyNet,
    samples: list[dict],
    scale: Scale,
    *,
    seed: int,
    checkpoint: Path,
    save_every: int = 100,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train a network, going on from ``checkpoint`` if it is there.

    Every step's crops, flips and dropped blocks follow from the seed and the step, so a run that
    was stopped ends with the same weights as one that was not.

    Args:
        network: Trained in place.
        samples: Samples of :class:`~iart_plugin.data.SintelFlowDataset`.
        scale: Steps, batch, crop and rates.
        seed: Decides the order of the data.
        checkpoint: File to keep the state in.
        save_every: Steps between two savings.
        progress: Called after every step with its number and loss.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=scale.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, scale.iterations, eta_min=scale.final_learning_rate
    )
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
    network.train()
    augment = FlowAugmentation(crop_size=scale.crop_size)
    for step in range(first, scale.iterations):
        torch.manual_seed(1_000_003 * seed + step)
        batch = [
            augment(samples[int(torch.randint(len(samples), ()))]) for _ in range(scale.batch_size)
        ]
        lq, gt, flows = (torch.stack([s[key] for s in batch]) for key in ("lq", "gt", "flows"))
        loss = ((network(lq, flows) - gt).square() + CHARBONNIER_EPS).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, loss.item())
        if (step + 1) % save_every == 0 or step + 1 == scale.iterations:
            parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
            _save(parts, step + 1, checkpoint)


@torch.no_grad()
def evaluate(network: AlignmentStudyNet, clips: list[dict]) -> dict[str, float]:
    """PSNR of a network on whole clips, without each clip's last frame, which has no reference.

    Args:
        network: A trained network.
        clips: Samples of :class:`~iart_plugin.data.SintelFlowDataset` of two frames or more.

    Returns:
        ``psnr``: mean over clips of the mean over frames, RGB, in dB, and ``psnr/<clip>``.
    """
    network.eval()
    scores = {}
    for clip in clips:
        out = network(clip["lq"].unsqueeze(0), clip["flows"].unsqueeze(0))[0]
        name = clip["key"].split("/")[0]
        scores.setdefault(name, []).append(psnr(out[:-1], clip["gt"][:-1]).mean().item())
    means = {f"psnr/{name}": float(np.mean(values)) for name, values in scores.items()}
    return {"psnr": float(np.mean(list(means.values()))), **means}


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """PSNR of RGB frames (n, 3, h, w) in [0, 1] after rounding to 8 bits: (n,) dB."""
    difference = (output.clamp(0, 1) * 255).round() - (target * 255).round()
    return 10 * torch.log10(255**2 / difference.square().mean((1, 2, 3)).clamp(min=1e-10))


def add_flow_noise(clips: list[dict], sigma: float, seed: int) -> float:
    """Add white Gaussian noise to the flow of samples, in place.

    Args:
        clips: Samples of :class:`~iart_plugin.data.SintelFlowDataset`.
        sigma: Standard deviation of each component in low-resolution pixels.
        seed: Decides the noise.

    Returns:
        The end-point error that it makes, in low-resolution pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for clip in clips:
        noise = torch.randn(clip["flows"].shape, generator=generator) * sigma
        clip["flows"] = clip["flows"] + noise
        errors.append(noise.norm(dim=1).mean().item())
    return float(np.mean(errors))


def _save(parts: dict[str, Any], step: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_whole({name: part.state_dict() for name, part in parts.items()} | {"step": step}, path)
