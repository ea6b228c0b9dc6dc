"""How large the study is: the paper's scale (Sec. B.1), and one that fits a CPU."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from iart_plugin.archs import AlignmentStudyNet

PADDINGS = ("zeros", "own")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes that all rows of a study share. The defaults take one CPU core an hour.

    Attributes:
        iterations: Training steps of every row.
        batch_size: Crops per step.
        num_frames: Frames in a crop. The last frame has no successor, so the network fuses it with
            itself and thereby learns to expect aligned features that look like the current ones.
            With few frames the last one is a large part of the loss, which is a disadvantage for
            the aligners that project their output.
        crop_size: Side of a crop in low-resolution pixels.
        learning_rate: Adam's first learning rate if none is searched for. It falls along a cosine
            to ``final_learning_rate``.
        final_learning_rate: The learning rate at the end.
        embed_dim: Channels of the network's features.
        mid_channels: Channels that enter the upsampler.
        hr_channels: Channels of the upsampler at four times the size, where most of a step's time
            goes if they are many. All rows share these layers.
        depths: Blocks in each layer of the network.
        num_heads: Attention heads of every layer.
        refined: Which frame the second backbone refines, 'aligned' or 'current'; see
            :class:`~iart_plugin.archs.AlignmentStudyNet`.
        search_iterations: Steps of each short training in the search for a row's learning rate; 0
            for no search.
        searched_rates: The learning rates that are tried for every row. The one that does best on
            the validation clips is used for that row with every flow and seed.
        matched_only: Whether the loss counts only pixels that the next frame shows inside the
            crop. Otherwise it counts all pixels of all frames.
        padding: What implicit alignment reads outside the frame: with 'zeros' it reads zeros, as
            the other aligners do; with 'own' it repeats the border, which is its default.
    """

    iterations: int = 1500
    batch_size: int = 2
    num_frames: int = 4
    crop_size: int = 16
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-7
    embed_dim: int = 24
    mid_channels: int = 24
    hr_channels: int = 24
    depths: tuple[int, ...] = (2, 2)
    num_heads: int = 2
    refined: str = "aligned"
    search_iterations: int = 400
    searched_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    matched_only: bool = True
    padding: str = "zeros"

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {self.padding!r}")

    @property
    def network(self) -> dict[str, Any]:
        """The keyword arguments of ``AlignmentStudyNet`` that the scale decides."""
        names = ("embed_dim", "mid_channels", "hr_channels", "depths", "num_heads", "refined")
        return {name: getattr(self, name) for name in names}

    def network_of(self, network: dict[str, Any]) -> dict[str, Any]:
        """A row's keyword arguments of the network, with the scale's padding filled in."""
        if self.padding == "own" or network["alignment"] != "implicit":
            return network
        options = {**network.get("alignment_options", {}), "padding_mode": self.padding}
        return {**network, "alignment_options": options}

    def build(self, network: dict[str, Any], seed: int) -> AlignmentStudyNet:
        """Build the network of a row. Its weights outside the aligner depend on the seed alone.

        Args:
            network: The row's own keyword arguments.
            seed: Seed of the first weights.
        """
        torch.manual_seed(seed)
        return AlignmentStudyNet(**self.network_of(network), **self.network)

    def describe(self) -> dict[str, Any]:
        """The scale as values that JSON can hold."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


CPU_SCALE = Scale()
PAPER_SCALE = Scale(
    iterations=100_000,
    batch_size=8,
    num_frames=5,  # the paper does not say how many; the last frame of a crop has no next frame
    crop_size=64,  # 256 pixels of the original
    learning_rate=2e-4,
    embed_dim=60,
    mid_channels=64,
    hr_channels=64,
    depths=(3, 3, 3),
    num_heads=6,
    search_iterations=0,
    matched_only=False,
    padding="own",
)
