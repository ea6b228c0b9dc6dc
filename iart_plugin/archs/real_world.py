"""RealIACNN: an IA-CNN for compressed and noisy video that cleans the frames first (Fig. 6).

This is RealBasicVSR (Chan et al., CVPR 2022) with implicit alignment. A small network removes noise
and compression artefacts from every low-resolution frame before an IA-CNN (in RealBasicVSR, a
BasicVSR) upscales it. The keys and shapes of RealBasicVSR are the same here, so that its
checkpoints can be loaded.
"""

import os
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from iart_plugin.ops.precision import wide_dtype
from iart_plugin.ops.tracing import is_traced

from .architecture import Architecture, Cost, Sizes, count_modules, has_prefix, recurrence_cost
from .ia_cnn import (
    BASICVSR,
    IACNN,
    ConvResidualBlocks,
    extends_basicvsr,
    mmagic_name,
    options_from_shapes,
)
from .recurrent import check_clip

CLEAN_PASSES = 3
CLEAN_THRESHOLD = 5 / 255
MOST_CLEAN_PASSES = 100
"""More passes are a slip: with a threshold of 0 each of them costs as much as the first."""

LONGEST_CHUNK = 24
"""The most frames that ``upscale`` keeps of a clip unless ``--chunk`` says otherwise. In long clips
noise is amplified from frame to frame, as ``python -m benchmarks.drift`` measures."""


class RealIACNN(IACNN):
    """An IA-CNN after a network that cleans the frames.

    Args:
        num_feat: channels of the features.
        num_block: residual blocks in each branch and in the extractor.
        num_clean_block: residual blocks of the cleaning network.
        alignment: as for :class:`IACNN`. With 'flow_warp' and without ``extractor`` the network
            is exactly RealBasicVSR.
        num_heads: as for :class:`IACNN`, and so are the arguments that are not listed here.
        clean_passes: how often a frame is cleaned at most. For training set it to 1, as for
            RealBasicVSR. Checkpoints do not record it.
        clean_threshold: a frame is cleaned again while the last pass changed it by this much or
            more, on average over its values, whose range is [0, 1].

    Raises:
        ValueError: if a size is impossible, the alignment is unknown, or it needs an extractor.
    """

    def __init__(
        self,
        num_feat: int = 64,
        num_block: int = 20,
        num_clean_block: int = 20,
        alignment: str = "implicit",
        *,
        num_heads: int = 8,
        spynet_path: str | os.PathLike | None = None,
        alignment_options: dict[str, Any] | None = None,
        extractor: bool = True,
        clean_passes: int = CLEAN_PASSES,
        clean_threshold: float = CLEAN_THRESHOLD,
        cache: str = "device",
        cache_limit: int | None = None,
    ) -> None:
        super().__init__(
            num_feat,
            num_block,
            num_heads,
            spynet_path,
            alignment,
            alignment_options=alignment_options,
            extractor=extractor,
            cache=cache,
            cache_limit=cache_limit,
        )
        if num_clean_block < 0:
            raise ValueError(f"num_clean_block must not be negative, got {num_clean_block}")
        self.set_cleaning(passes=clean_passes, threshold=clean_threshold)
        self.options["num_clean_block"] = num_clean_block
        self.image_cleaning = nn.Sequential(
            ConvResidualBlocks(3, num_feat, num_clean_block),
            nn.Conv2d(num_feat, 3, 3, padding=1),
        )

    def set_cleaning(self, *, passes: int | None = None, threshold: float | None = None) -> None:
        """Sets how often frames are cleaned; an argument of None leaves its setting as it is.

        Raises:
            ValueError: if ``passes`` is no whole number from 0 to 100, or ``threshold`` is
                negative or no number.
        """
        if passes is not None:
            if passes not in range(MOST_CLEAN_PASSES + 1):
                raise ValueError(
                    f"clean_passes must be a whole number from 0 to {MOST_CLEAN_PASSES}, got "
                    f"{passes!r}"
                )
            self.clean_passes = int(passes)
        if threshold is not None:
            if not isinstance(threshold, Real) or not threshold >= 0:
                raise ValueError(f"clean_threshold must be a number from 0 on, got {threshold!r}")
            self.clean_threshold = float(threshold)

    def forward(
        self,
        lqs: Tensor,
        flows: tuple[Tensor, Tensor] | None = None,
        return_lqs: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Does what :meth:`RecurrentNetwork.forward` does, after cleaning the frames.

        If flow is given, it must be the flow between the cleaned frames. With ``return_lqs``, the
        result is a pair of the output and the cleaned frames. The output is then contiguous,
        because MMagic's RealBasicVSR model, which asks for the pair, takes a ``view`` of it.
        """
        cleaned = self.prepare(lqs)
        output = torch.stack(list(self.forward_iter(cleaned, flows, prepared=True)), 1)
        return (output.contiguous(), cleaned) if return_lqs else output

    def prepare(self, lqs: Tensor) -> Tensor:
        """Cleans the frames of a clip (n, t, 3, h, w), each as often as necessary."""
        check_clip(lqs)
        if torch.is_grad_enabled():
            return self._clean(lqs.flatten(0, 1)).unflatten(0, lqs.shape[:2])
        return torch.stack([self._clean(frames) for frames in lqs.unbind(1)], 1)

    def _clean(self, frames: Tensor) -> Tensor:
        """Cleans frames (n, 3, h, w) independently of each other."""
        unclean = None  # (n, 1, 1, 1), the frames that every pass has changed much; None for all
        for i in range(self.clean_passes):
            residue = self.image_cleaning(frames)
            if unclean is not None:
                residue = torch.where(unclean, residue, torch.zeros_like(residue))
            frames = frames + residue
            # Tensors without data, on which FLOPs are counted, get one pass.
            if i + 1 == self.clean_passes or frames.is_meta:
                break
            change = residue.abs().mean((1, 2, 3), keepdim=True, dtype=wide_dtype(residue))
            large = change >= self.clean_threshold
            unclean = large if unclean is None else unclean & large
            # A traced graph cannot end early; the passes that are left over then change nothing.
            if not is_traced(frames) and not unclean.any():
                break
        return frames


def _options(sizes: Sizes) -> dict[str, Any]:
    """Derives the constructor's options from the shapes of a state dict."""
    blocks = count_modules(sizes, "image_cleaning.0.main.2.")
    return options_from_shapes(sizes) | {"num_clean_block": blocks}


def _cost(network: nn.Module) -> Cost:
    # While whole frames are cleaned, a residual block holds its input and two results.
    return recurrence_cost(network.num_feat, whole=3 * 4 * network.num_feat)


def _mmagic_name(key: str) -> str:
    return key if key.startswith("image_cleaning.") else f"basicvsr.{mmagic_name(key)}"


_COMMON = {
    "network": RealIACNN,
    "options": _options,
    "certain": ("num_feat", "num_block", "num_clean_block", "position_channels"),
    "cost": _cost,
    "longest_chunk": LONGEST_CHUNK,
    "averaged_beside": True,
}

ROWS = (
    Architecture(
        name="RealIACNN",
        title="RealIACNN",
        model="real-ia-cnn",
        summary="RealIACNN: RealBasicVSR with implicit alignment, for noisy, compressed video",
        starts_from="RealBasicVSR",
        matches=lambda sizes: has_prefix(sizes, "image_cleaning.") and extends_basicvsr(sizes),
        **_COMMON,
    ),
    Architecture(
        name="RealBasicVSR",
        title="RealBasicVSR",
        model="real-basicvsr",
        summary="RealBasicVSR, for noisy, compressed video",
        variant=BASICVSR,
        matches=lambda sizes: has_prefix(sizes, "image_cleaning.") and not extends_basicvsr(sizes),
        renames=(("basicvsr.", ""),),
        mmagic_name=_mmagic_name,
        **_COMMON,
    ),
)
