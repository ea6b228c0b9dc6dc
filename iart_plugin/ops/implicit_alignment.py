"""Implicit resampling-based alignment: window cross-attention on sub-pixel positions (Sec. 4)."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iart_plugin.kernels.availability import uses_kernel

from .aligner import Alignment
from .alignment_forms import align_windows, encode
from .alignment_operator import implicit_alignment
from .constants import kept
from .positional_encoding import angle_divisors
from .precision import compute_dtype, full_precision, wide_dtype
from .warp import check_flow, pixel_grid


class PreparedWeights(NamedTuple):
    """What depends on the weights alone, for keys and then for values.

    Attributes:
        weight: (2 * channels, channels) for features, in the dtype of products.
        bias: (2 * channels,), likewise.
        table: (w * w, 2 * channels), what the window's encodings add, or None.
        outside: (2 * channels,), the keys and values outside the frame; None repeats the border.
    """

    weight: Tensor
    bias: Tensor
    table: Tensor | None
    outside: Tensor | None


class ProjectedReference(NamedTuple):
    """A reference frame after the linear layers of Eq. 10 and 11, before any window is known.

    Attributes:
        keys_values: (n, h * w, 2 * channels), keys then values of every pixel.
        height: h, the frame's height.
        width: w, the frame's width.
        prepared: the weights' part.
    """

    keys_values: Tensor
    height: int
    width: int
    prepared: PreparedWeights


class ImplicitAlignment(Alignment):
    r"""Aligns a reference to the current frame by attention over a window of the reference.

    A pixel at p refers to the position u = p + flow(p), with base z = floor(u) and decimal
    d = u - z (Eq. 12). The query is the current feature plus the encoding of d (Eq. 9, 16, 17).
    Keys and values come from the ``window_size`` squared reference features that start at z, plus
    the encodings of their indices (Eq. 10, 11, 13, 14). The output is
    softmax(QK^T / sqrt(C / heads)) V (Eq. 8), with the heads concatenated. Window pixels outside
    the frame repeat its border, or are zeros.

    Each projection F of the paper is a single linear layer, so F(X_r + PE) = F(X_r) + F_0(PE),
    where F_0 is F without its bias. The reference is therefore projected once per pixel before
    pixels are gathered, and what the encodings add is a table with one row per window pixel. This
    is exact, needs 3 projections per pixel instead of 9 for a 2 x 2 window, and lets several
    alignments share one projection of the reference.

    Where the paper and the released weights differ, this class follows the weights. The window
    starts at z; Eq. 15 centres it, which gives the same pixels for a window of 2 but others for
    3 and more. Window indices are encoded as [i, j] / (w - 1) and decimals as d / w; Eq. 14 has
    [i, j] / w and Eq. 17 has d / 2w.

    Args:
        channels: C, the width of both features; even, and divisible by ``num_heads``.
        num_heads: number of attention heads; heads split the channels.
        window_size: w, side of the window.
        encode_window: encode the window's indices in keys and values (Table 3).
        encode_decimal: encode the decimal part of the position in the query (Table 3).
        position_channels: further channels that hold encodings without features; a multiple of 4.
            The paper has none. In the sums of Eq. 9 to 11 features and encodings share channels,
            so a layer that reads a position exactly must ignore a part of the features.
        padding_mode: the features outside the frame, named as in PyTorch's ``grid_sample``:
            'border', as in the released program, or 'zeros', as in BasicVSR's warping.
        check_finite: raise an error if the flow has a NaN or infinity. Off by default, because the
            check waits for the device. Without it such pixels give NaN if decimals are encoded,
            and so do the weights' gradients, but other pixels' outputs are not affected.

    Raises:
        ValueError: if the arguments do not fit each other.
    """

    OPTIONS = (
        "num_heads",
        "window_size",
        "encode_window",
        "encode_decimal",
        "position_channels",
        "padding_mode",
        "check_finite",
    )
    takes_channels = True
    uses_current = True

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        window_size: int = 2,
        encode_window: bool = True,
        encode_decimal: bool = True,
        position_channels: int = 0,
        padding_mode: str = "border",
        check_finite: bool = False,
    ) -> None:
        super().__init__()
        if channels <= 0 or channels % 2 or num_heads <= 0 or channels % num_heads:
            raise ValueError(
                f"channels must be even and divisible by num_heads, got {channels} and {num_heads}"
            )
        if window_size < 1:
            raise ValueError(f"window_size must be at least 1, got {window_size}")
        if position_channels < 0 or position_channels % 4:
            raise ValueError(f"position_channels must be a multiple of 4, got {position_channels}")
        if padding_mode not in ("border", "zeros"):
            raise ValueError(f"padding_mode must be 'border' or 'zeros', got {padding_mode!r}")
        self.channels = channels
        self.num_heads = num_heads
        self.window_size = window_size
        self.encode_window = encode_window
        self.encode_decimal = encode_decimal
        self.position_channels = position_channels
        self.padding_mode = padding_mode
        self.check_finite = check_finite
        self.q = nn.Linear(channels + position_channels, channels)
        self.k = nn.Linear(channels + position_channels, channels)
        self.v = nn.Linear(channels + position_channels, channels)

    def extra_repr(self) -> str:
        """The options that are shown when the module is printed."""
        return (
            f"channels={self.channels}, num_heads={self.num_heads}, "
            f"window_size={self.window_size}, encode_window={self.encode_window}, "
            f"encode_decimal={self.encode_decimal}, position_channels={self.position_channels}, "
            f"padding_mode={self.padding_mode!r}"
        )

    def forward(
        self,
        reference: Tensor,
        current: Tensor,
        flow: Tensor,
        project: Callable[[Tensor], ProjectedReference] | None = None,
    ) -> Tensor:
        """Aligns ``reference`` to ``current``.

        Args:
            reference: (n, c, h, w) features of the other frame.
            current: (n, c, h, w) features of this frame.
            flow: (n, 2, h, w) displacements in pixels, x then y, current to reference.
            project: the result of :meth:`projector`, so that many calls can share it.

        Returns:
            (n, c, h, w) reference features at the current frame's positions.

        Raises:
            ValueError: if shapes do not match, or ``check_finite`` finds a NaN or infinity.
        """
        return self.align((project or self.project_reference)(reference), current, flow)

    def projector(self) -> Callable[[Tensor], ProjectedReference]:
        """Returns :meth:`project_reference` with the weights' part done."""
        return partial(self.project_reference, prepared=self._prepare())

    def _prepare(self) -> PreparedWeights:
        weight = torch.cat((self.k.weight, self.v.weight))
        bias = torch.cat((self.k.bias, self.v.bias))
        dtype = compute_dtype(weight)
        return PreparedWeights(
            weight[:, : self.channels].to(dtype),
            bias.to(dtype),
            self._window_table(weight) if self.encode_window else None,
            bias if self.padding_mode == "zeros" else None,
        )

    def project_reference(
        self, x: Tensor, prepared: PreparedWeights | None = None
    ) -> ProjectedReference:
        """Projects a reference (n, c, h, w) to keys and values, which can be used several times.

        :meth:`projector` gives ``prepared``.
        """
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected (n, {self.channels}, h, w) features, got {tuple(x.shape)}")
        height, width = x.shape[-2:]
        prepared = prepared or self._prepare()
        tokens = x.flatten(2).transpose(1, 2)  # (n, h * w, c)
        keys_values = nn.functional.linear(tokens, prepared.weight, prepared.bias)
        return ProjectedReference(keys_values, height, width, prepared)

    def align(self, projected: ProjectedReference, current: Tensor, flow: Tensor) -> Tensor:
        """Aligns a projected reference to ``current``; otherwise the same as :meth:`forward`."""
        check_flow(current, flow)
        keys_values, height, width, prepared = projected
        n, c = current.shape[:2]
        if c != self.channels or (n, height, width) != (keys_values.shape[0], *current.shape[2:]):
            raise ValueError(
                f"current features {tuple(current.shape)} do not match a reference of "
                f"({keys_values.shape[0]}, {self.channels}, {height}, {width})"
            )
        if self.check_finite and not torch.isfinite(flow).all():
            count = int((~torch.isfinite(flow)).sum())
            raise ValueError(f"flow has {count} NaN or infinite values of {flow.numel()}")

        flow = flow.to(wide_dtype(flow))
        arguments = (
            *(keys_values, current, flow),
            *(self.q.weight, self.q.bias, prepared.table, prepared.outside),
            self._divisors() if self.encode_decimal else None,
            self.num_heads,
            self.window_size,
        )
        has_kernel = uses_kernel(flow.device, keys_values.dtype, flow.dtype)
        form = implicit_alignment if has_kernel else align_windows
        return form(*arguments).permute(0, 3, 1, 2)  # channels last

    def _window_table(self, weight: Tensor) -> Tensor:
        """What the window's encodings (Eq. 14) add to keys and values: (w * w, 2 c)."""
        encoding = self.window_encoding(weight.device, wide_dtype(weight))
        with full_precision(weight.device):
            return encoding @ weight.to(encoding.dtype).t()

    def window_encoding(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Returns the encodings of the window's pixels, row by row (Eq. 14): (w * w, c + p)."""
        sizes = (self.window_size, self.channels, self.position_channels)
        return kept(_window_encoding, *sizes, device=device, dtype=dtype)

    def _divisors(self) -> Tensor:
        """The divisor of the angle in each of the query's input channels: (c + p,)."""
        like = {"device": self.q.weight.device, "dtype": wide_dtype(self.q.weight)}
        return kept(_query_divisors, self.channels, self.position_channels, **like)


def _window_encoding(
    window_size: int, channels: int, position_channels: int, **like: Any
) -> Tensor:
    index = pixel_grid(window_size, window_size, **like).flip(0).flatten(1).t()  # (w * w, 2)
    return encode(index / (window_size - 1 + 1e-6), channels, position_channels)


def _query_divisors(channels: int, position_channels: int, **like: Any) -> Tensor:
    sizes = (channels, channels, position_channels, position_channels)  # each for y, then for x
    return torch.cat([angle_divisors(size // 2, **like) for size in sizes])
