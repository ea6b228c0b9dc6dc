"""Training and testing of one row at CPU scale: same seed, data and steps for every aligner."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.data.augment import FlowAugmentation
from iart_plugin.weight_files import save_whole

CHARBONNIER_EPS = 1e-6  # added to the squared difference of values in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What all rows of a run share. The defaults are for two CPU cores and under two hours.

    Attributes:
        iterations: Steps of every row.
        batch_size: Crops a step.
        num_frames: Frames of a crop. The last one has no successor and is fused with itself, which
            asks of the fusion that aligned features lie in the space of the current ones: with
            few frames that share of the loss holds back aligners that project their output.
        crop_size: Side of a crop in low-resolution pixels.
        learning_rate: Adam's, going down to ``final_learning_rate`` by a cosine.
        final_learning_rate: At the last step.
        embed_dim: The network's; likewise the following.
        mid_channels: Channels that enter the upsampler.
        depths: Blocks a layer.
        num_heads: Attention heads.
    """

    iterations: int = 2000
    batch_size: int = 2
    num_frames: int = 4
    crop_size: int = 16
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-7
    embed_dim: int = 24
    mid_channels: int = 24
    depths: tuple[int, ...] = (2, 2)
    num_heads: int = 2

    def build(self, network: dict, seed: int) -> AlignmentStudyNet:
        """The network of a row, its shared weights decided by the seed alone."""
        torch.manual_seed(seed)
        return AlignmentStudyNet(
            **network,
            embed_dim=self.embed_dim,
            mid_channels=self.mid_channels,
            depths=self.depths,
            num_heads=self.num_heads,
        )

    def learning_rate_at(self, step: int) -> float:
        """Cosine from the first rate at step 0 to the final one at the last step."""
        share = 0.5 * (1 + math.cos(math.pi * step / max(self.iterations - 1, 1)))
        return self.final_learning_rate + share * (self.learning_rate - self.final_learning_rate)


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
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    network.train()
    augment = FlowAugmentation(crop_size=scale.crop_size)
    for step in range(first, scale.iterations):
        torch.manual_seed(1_000_003 * seed + step)
        batch = [
            augment(samples[int(torch.randint(len(samples), ()))]) for _ in range(scale.batch_size)
        ]
        lq, gt, flows = (torch.stack([s[key] for s in batch]) for key in ("lq", "gt", "flows"))
        for group in optimizer.param_groups:
            group["lr"] = scale.learning_rate_at(step)
        loss = ((network(lq, flows) - gt).square() + CHARBONNIER_EPS).sqrt().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(step + 1, loss.item())
        if (step + 1) % save_every == 0 or step + 1 == scale.iterations:
            _save(network, optimizer, step + 1, checkpoint)


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


def _save(network, optimizer, step: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    save_whole(state, path)


def describe(scale: Scale) -> dict:
    """The scale as plain values, for a file beside the results."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(scale).items()}
