"""Training and testing of one row at CPU scale, with the same data and steps for all rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.data.augment import FlowAugmentation
from iart_plugin.fused import fused
from iart_plugin.ops import pixel_grid
from iart_plugin.weight_files import save_whole

from .scale import Scale

CHARBONNIER_EPS = 1e-6  # added to the squared difference of values in [0, 1]
UPSCALING = 4


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
    """Train a network. If ``checkpoint`` exists, the training resumes from it.

    The crops, flips and dropped blocks of a step depend only on the seed and the step's number, so
    a training that was stopped and resumed ends with the same weights as an uninterrupted one.

    Args:
        network: The network, which is trained in place.
        samples: Samples of :class:`~iart_plugin.data.SintelFlowDataset`.
        scale: Steps, batch, crop, learning rate and the pixels that count.
        seed: Seed of the data's order, of the crops and flips, and of the dropped blocks.
        checkpoint: The file that the training's state is saved to.
        save_every: Number of steps after which the state is saved again.
        progress: Called after every step with its number and loss.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=scale.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, scale.iterations, eta_min=scale.final_learning_rate
    )
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        first = state["step"]
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    network.train()
    augment = FlowAugmentation(crop_size=scale.crop_size)
    for step in range(first, scale.iterations):
        torch.manual_seed(1_000_003 * seed + step)
        batch = [
            augment(samples[int(torch.randint(len(samples), ()))]) for _ in range(scale.batch_size)
        ]
        lq, gt, flows, valid = (
            torch.stack([sample[key] for sample in batch]) for key in ("lq", "gt", "flows", "valid")
        )
        # The fast form of the blocks computes them again in the backward pass to save memory, and
        # takes 1.7 times as long here, where memory is no concern.
        with fused(False):
            output = network(lq, flows)
        error = ((output - gt).square() + CHARBONNIER_EPS).sqrt()
        if scale.matched_only:
            loss = masked_mean(error[:, :-1], matched_pixels(flows, valid))
        else:
            loss = error.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, loss.item())
        if (step + 1) % save_every == 0 or step + 1 == scale.iterations:
            states = {name: part.state_dict() for name, part in parts.items()}
            save_whole(states | {"step": step + 1}, checkpoint)


def matched_pixels(flows: Tensor, valid: Tensor) -> Tensor:
    """The high-resolution pixels that have a match inside the frames.

    A crop can cut off a pixel's match, which the data set's mask does not take into account.

    Args:
        flows: (..., 2, h, w) in low-resolution pixels, x then y.
        valid: (..., 1, h, w), 1 where the next frame shows the pixel.

    Returns:
        (..., 1, 4h, 4w), 1 where a pixel counts and 0 elsewhere.
    """
    height, width = flows.shape[-2:]
    position = pixel_grid(height, width, device=flows.device, dtype=flows.dtype) + flows
    last = flows.new_tensor([width, height]).view(2, 1, 1) - 0.5
    inside = ((position >= -0.5) & (position <= last)).all(-3, keepdim=True)
    mask = valid * inside
    return mask.repeat_interleave(UPSCALING, -1).repeat_interleave(UPSCALING, -2)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of (..., 3, h, w) where the mask (..., 1, h, w) is 1; 0 if the mask is all 0."""
    return (values * mask).sum() / (values.shape[-3] * mask.sum()).clamp(min=1)


@torch.no_grad()
def evaluate(network: AlignmentStudyNet, clips: list[dict]) -> dict[str, float]:
    """The PSNR of a network on whole clips.

    Each clip's last frame is left out, because it has no next frame to align.

    Args:
        network: A trained network.
        clips: Samples of :class:`~iart_plugin.data.SintelFlowDataset` of two frames or more.

    Returns:
        PSNR of RGB in dB: ``psnr`` is the mean over clips of the mean over frames, and
        ``psnr_matched`` counts only the pixels that have a match. ``psnr/<clip>`` and
        ``psnr_matched/<clip>`` are the means of the single clips.
    """
    network.eval()
    scores: dict[str, list[float]] = {}
    for clip in clips:
        out = network(clip["lq"].unsqueeze(0), clip["flows"].unsqueeze(0))[0, :-1]
        target, name = clip["gt"][:-1], clip["key"].split("/")[0]
        mask = matched_pixels(clip["flows"], clip["valid"])
        scores[f"psnr/{name}"] = psnr(out, target).mean().item()
        scores[f"psnr_matched/{name}"] = psnr(out, target, mask).nanmean().item()
    means = {
        key: float(np.nanmean([v for name, v in scores.items() if name.startswith(f"{key}/")]))
        for key in ("psnr", "psnr_matched")
    }
    return {**means, **scores}


def psnr(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """PSNR of RGB frames after rounding to 8 bits.

    Args:
        output: (n, 3, h, w) in [0, 1].
        target: (n, 3, h, w) in [0, 1].
        mask: (n, 1, h, w), 1 where a pixel counts; ``None`` counts all.

    Returns:
        (n,) in dB; NaN for a frame in which no pixel counts.
    """
    difference = (output.clamp(0, 1) * 255).round() - (target * 255).round()
    mask = torch.ones_like(output[:, :1]) if mask is None else mask
    total = (difference.square() * mask).sum((1, 2, 3))
    error = total / (output.shape[1] * mask.sum((1, 2, 3)))
    return 10 * torch.log10(255**2 / error.clamp(min=1e-10))


def add_flow_noise(clips: list[dict], sigma: float, seed: int) -> float:
    """Add white Gaussian noise to the flow of samples, in place.

    Args:
        clips: Samples of :class:`~iart_plugin.data.SintelFlowDataset`.
        sigma: Standard deviation of each component in low-resolution pixels.
        seed: Seed of the noise.

    Returns:
        The mean end-point error that the noise causes, in low-resolution pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for clip in clips:
        noise = torch.randn(clip["flows"].shape, generator=generator) * sigma
        clip["flows"] = clip["flows"] + noise
        errors.append(noise.norm(dim=1).mean().item())
    return float(np.mean(errors))
