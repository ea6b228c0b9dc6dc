"""What the recurrent networks share: a clip in, frames out one at a time, flow from either side."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iart_plugin.flow import SPyNet, clip_flows, given_flows

from .feature_cache import CacheBudget, CacheOptions, FeatureCache
from .keys import check_fit, translate
from .upsampler import UpsamplingNetwork


def check_clip(lqs: Tensor) -> None:
    """Raises ValueError if a tensor is no clip (n, t, 3, h, w) of at least one pixel."""
    if lqs.dim() != 5 or lqs.shape[2] != 3 or 0 in lqs.shape:
        raise ValueError(f"expected a clip (n, t, 3, h, w), got {tuple(lqs.shape)}")


class RecurrentNetwork(UpsamplingNetwork):
    """Base of the recurrent networks: checks a clip, finds its flow, stacks the output frames.

    Subclasses implement :meth:`_frames`. Nothing about a clip is kept on the network.

    Args:
        num_feat: channels of the features that enter the upsampler.
        spynet_path: weights of the flow network, for training from scratch; a checkpoint of the
            whole network carries its own.
        cache: where features wait for the next branch: 'device', 'cpu' or 'disk', see
            :class:`~iart_plugin.archs.feature_cache.CacheOptions`. Results do not depend on it.
        cache_limit: bytes of features that stay on the device.

    Attributes:
        options: the constructor's options that rebuild the network, saved with its weights.
        cache: where features wait; may be set anew between clips.
    """

    options: dict[str, Any]

    def __init__(
        self,
        num_feat: int,
        *,
        spynet_path: str | os.PathLike | None = None,
        cache: str = "device",
        cache_limit: int | None = None,
    ) -> None:
        super().__init__(num_feat)
        self.cache = CacheOptions(cache, cache_limit).check()
        self.spynet = SPyNet(spynet_path)
        self._register_load_state_dict_pre_hook(translate)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads weights of the released program, of BasicSR or of MMagic.

        Raises:
            CheckpointMismatch: if they do not fit, saying what they are and what the network is.
        """
        check_fit(self, state_dict, strict)
        return super().load_state_dict(state_dict, strict, assign)

    def forward(self, lqs: Tensor, flows: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Super-resolves a clip.

        Args:
            lqs: (n, t, 3, h, w) RGB in [0, 1], t, h, w >= 1.
            flows: (forward, backward) in pixels, each (n, t - 1, 2, h, w): element i of the
                forward flow maps frame i + 1 to frame i, of the backward flow frame i to frame
                i + 1. Estimated by SPyNet if None.

        Returns:
            (n, t, 3, 4h, 4w), about [0, 1], not clamped.

        Raises:
            ValueError: if the clip or the flows have the wrong shape.
        """
        return torch.stack(list(self.forward_iter(lqs, flows)), 1)

    def prepare(self, lqs: Tensor) -> Tensor:
        """What happens to a clip's frames, each as a whole, before all else: here, nothing."""
        return lqs

    def forward_iter(
        self,
        lqs: Tensor,
        flows: tuple[Tensor, Tensor] | None = None,
        *,
        prepared: bool = False,
    ) -> Iterator[Tensor]:
        """Yields the frames of :meth:`forward`'s result in order, (n, 3, 4h, 4w) each.

        Only one large frame exists at a time.

        Args:
            lqs: as in :meth:`forward`.
            flows: as in :meth:`forward`.
            prepared: whether ``lqs`` is, or is a part of, what :meth:`prepare` returned.
        """
        check_clip(lqs)
        lqs = lqs if prepared else self.prepare(lqs)
        flows = clip_flows(self.spynet, lqs) if flows is None else given_flows(lqs, flows)
        flows = [flow.to(lqs.device) for flow in flows]
        yield from self._frames(lqs, *flows)

    def branches(self) -> list[nn.Module]:
        """The modules that a clip passes through, each once for every frame, in order.

        Work on a clip can be counted by their calls.
        """
        raise NotImplementedError

    def _caches(self, frames: int) -> Callable[[], FeatureCache]:
        """What makes the caches of one clip, which share its budget."""
        budget = CacheBudget(self._cache_of(frames))
        return lambda: FeatureCache(budget)

    def _cache_of(self, frames: int) -> CacheOptions:
        """Where the features of a clip of so many frames wait."""
        return self.cache

    def _frames(self, lqs: Tensor, forward: Tensor, backward: Tensor) -> Iterator[Tensor]:
        raise NotImplementedError
