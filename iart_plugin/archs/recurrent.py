"""The base class of the recurrent networks, which return a clip's frames one at a time."""

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
    """Raises ValueError if a tensor is not a clip (n, t, 3, h, w) of at least one pixel."""
    if lqs.dim() != 5 or lqs.shape[2] != 3 or 0 in lqs.shape:
        raise ValueError(f"expected a clip (n, t, 3, h, w), got {tuple(lqs.shape)}")


class RecurrentNetwork(UpsamplingNetwork):
    """Base of the recurrent networks: checks a clip, estimates its flow, stacks the output frames.

    Subclasses implement :meth:`_frames`. The network stores nothing about a clip.

    Args:
        num_feat: channels of the features that enter the upsampler.
        spynet_path: weights of the flow network, for training from scratch; a checkpoint of the
            whole network contains them.
        cache: where features are stored for the next branch: 'device', 'cpu' or 'disk', see
            :class:`~iart_plugin.archs.feature_cache.CacheOptions`. Results do not depend on it.
        cache_limit: the most bytes of features on the device.

    Attributes:
        options: the constructor's options that rebuild the network; they are saved with its
            weights.
        cache: where features are stored; it may be changed between clips.
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
            CheckpointMismatch: if they do not fit the network; the message says how they differ.
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
        """Preprocesses whole frames before everything else; the base class does nothing."""
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
            prepared: whether ``lqs`` is the result of :meth:`prepare`, or a part of it.
        """
        check_clip(lqs)
        lqs = lqs if prepared else self.prepare(lqs)
        flows = clip_flows(self.spynet, lqs) if flows is None else given_flows(lqs, flows)
        flows = [flow.to(lqs.device) for flow in flows]
        yield from self._frames(lqs, *flows)

    def branches(self) -> list[nn.Module]:
        """The modules that a clip passes through, in order, each called once for every frame.

        Counting their calls shows the progress on a clip.
        """
        raise NotImplementedError

    def _caches(self, frames: int) -> Callable[[], FeatureCache]:
        """A function that makes the caches of one clip, which share a budget."""
        budget = CacheBudget(self._cache_of(frames))
        return lambda: FeatureCache(budget)

    def _cache_of(self, frames: int) -> CacheOptions:
        """Where the features of a clip with this number of frames are stored."""
        return self.cache

    def _frames(self, lqs: Tensor, forward: Tensor, backward: Tensor) -> Iterator[Tensor]:
        raise NotImplementedError
