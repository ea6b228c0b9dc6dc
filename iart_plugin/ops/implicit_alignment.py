"""Implicit resampling-based alignment: window cross-attention on sub-pixel positions (Sec. 4)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from iart_plugin.fused import is_fused
from iart_plugin.plain import plain_align

from .aligner import Alignment
from .parts import in_parts
from .positional_encoding import sinusoidal_encoding
from .precision import full_precision, wide_dtype
from .tracing import is_traced
from .warp import check_flow, pixel_grid

FAR = 2.0**23
"""Pixels: outside of any frame, and still exact in float32."""

STRIP_PIXELS = 4096
"""Aligned at once on a CPU without gradients: every pixel gathers eight times its features."""


class ProjectedReference(NamedTuple):
    """A reference frame after the linear layers of Eq. 10 and 11, before any window is known.

    Attributes:
        keys_values: (n, h * w, 2 * channels), keys then values of every pixel; in the plain form
            (n, h * w, channels), the reference itself.
        height: h.
        width: w.
    """

    keys_values: Tensor
    height: int
    width: int


class ImplicitAlignment(Alignment):
    r"""Aligns a reference to the current frame by attention over a window of the reference.

    For a pixel at p, with position u = p + flow(p), base z = floor(u) and decimal d = u - z
    (Eq. 12): the query is the current feature plus the encoding of d (Eq. 9, 16, 17), keys and
    values are the ``window_size`` squared reference features from z on, plus the encodings of
    their indices (Eq. 10, 11, 13, 14), and the output is softmax(QK^T / sqrt(C / heads)) V
    (Eq. 8), heads concatenated. Window pixels outside the frame repeat its border, or are zeros.

    Each F is a single linear layer, so F(X_r + PE) = F(X_r) + F_0(PE): the reference is projected
    once per pixel and gathered afterwards, and the encoding's share is a table of one row for each
    window pixel. That is exact, costs 3 projections instead of the 9 of a 2 x 2 window, and lets
    one projection serve several alignments.

    Where the paper and the released weights differ, this follows the weights: the window starts
    at z (Eq. 15 centres it: the same set for 2, another for 3 and more), window indices are
    encoded as [i, j] / (w - 1) and decimals as d / w (Eq. 14: [i, j] / w, Eq. 17: d / 2w).

    Args:
        channels: C, the width of both features; even, divisible by ``num_heads``.
        num_heads: number of attention heads; heads split the channels.
        window_size: w, side of the window.
        encode_window: encode the window's indices in keys and values (Table 3).
        encode_decimal: encode the decimal part of the position in the query (Table 3).
        position_channels: further channels of the encodings, to which no feature is added; not in
            the paper. In the sums of Eq. 9 to 11 features and encodings share their channels, so
            that a layer that reads a position exactly is blind to what features have in its
            plane. A multiple of 4.
        padding_mode: what features are outside the frame, in the words of PyTorch's
            ``grid_sample``: 'border', as in the released program, or 'zeros', as BasicVSR warps.
        check_finite: raise if the flow has a NaN or infinity. Off by default, because the check
            waits for the device; without it such pixels give NaN where decimals are encoded, and
            the weights' gradients are NaN, but no other pixel's output is touched.

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

    def forward(self, reference: Tensor, current: Tensor, flow: Tensor) -> Tensor:
        """Aligns ``reference`` to ``current``.

        Args:
            reference: (n, c, h, w) features of the other frame.
            current: (n, c, h, w) features of this frame.
            flow: (n, 2, h, w) displacements in pixels, x then y, current to reference.

        Returns:
            (n, c, h, w) reference features at the current frame's positions.

        Raises:
            ValueError: if shapes do not match, or ``check_finite`` finds a NaN or infinity.
        """
        return self.align(self.project_reference(reference), current, flow)

    def project_reference(self, x: Tensor) -> ProjectedReference:
        """Projects a reference (n, c, h, w) to keys and values, once for any number of uses."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(f"expected (n, {self.channels}, h, w) features, got {tuple(x.shape)}")
        height, width = x.shape[-2:]
        if not is_fused():
            return ProjectedReference(x.flatten(2).transpose(1, 2), height, width)
        weight = torch.cat((self.k.weight, self.v.weight))[:, : self.channels]
        bias = torch.cat((self.k.bias, self.v.bias))
        tokens = x.flatten(2).transpose(1, 2)  # (n, h * w, c)
        return ProjectedReference(nn.functional.linear(tokens, weight, bias), height, width)

    def align(self, projected: ProjectedReference, current: Tensor, flow: Tensor) -> Tensor:
        """Aligns a projected reference to ``current``; arguments and result as in forward."""
        check_flow(current, flow)
        keys_values, height, width = projected
        n, c = current.shape[:2]
        if c != self.channels or (n, height, width) != (keys_values.shape[0], *current.shape[2:]):
            raise ValueError(
                f"current features {tuple(current.shape)} do not match a reference of "
                f"({keys_values.shape[0]}, {self.channels}, {height}, {width})"
            )
        if self.check_finite and not torch.isfinite(flow).all():
            count = int((~torch.isfinite(flow)).sum())
            raise ValueError(f"flow has {count} NaN or infinite values of {flow.numel()}")

        if keys_values.shape[-1] == c:
            return plain_align(self, keys_values, height, width, current, flow)
        base, decimal = self._split_position(flow)
        tables = self._window_tables(flow)

        def strip(top: int, bottom: int) -> Tensor:
            rows = (x[:, :, top:bottom] for x in (current, base, decimal))
            return self._attend(projected, tables, *rows)

        whole = torch.is_grad_enabled() or flow.device.type != "cpu" or is_traced(flow)
        step = height if whole else max(1, STRIP_PIXELS // width)
        return in_parts(strip, height, step).permute(0, 3, 1, 2)  # channels last

    def _attend(
        self,
        projected: ProjectedReference,
        tables: tuple[Tensor, Tensor],
        current: Tensor,
        base: Tensor,
        decimal: Tensor,
    ) -> Tensor:
        """Aligns to some of the current frame's rows; (n, rows, w, c)."""
        keys_values, height, width = projected
        n, c = current.shape[:2]
        # Scaled before the product with the keys, which could overflow half precision.
        query = self._query(current, decimal) * (c // self.num_heads) ** -0.5
        key_table, value_table = (table.to(query.dtype) for table in tables)
        keys_values = keys_values.reshape(n * height * width, 2 * c)
        first_row = torch.arange(n, device=base.device).view(n, 1, 1) * (height * width)

        logits, values = [], []
        for index in range(self.window_size**2):
            i, j = divmod(index, self.window_size)
            row, inside = self.window_pixel(base, i, j, (height, width))
            row = (first_row + row).flatten()
            pair = keys_values.index_select(0, row).view(n, -1, 2 * c)
            if inside is not None:  # what zeros are projected to
                bias = torch.cat((self.k.bias, self.v.bias)).to(pair.dtype)
                pair = torch.where(inside.view(n, -1, 1), pair, bias)
            key, value = pair.split(c, dim=-1)
            key = (key + key_table[index]).unflatten(-1, (self.num_heads, -1))
            # Accumulated and normalised in float32 whatever the precision of the features.
            logits.append((query * key).sum(-1, dtype=wide_dtype(query)))
            values.append(value + value_table[index])
        weights = torch.stack(logits, -1).softmax(-1).to(values[0].dtype)
        out = sum(
            weight.unsqueeze(-1) * value.unflatten(-1, (self.num_heads, -1))
            for weight, value in zip(weights.unbind(-1), values, strict=True)
        )  # (n, hw, heads, c / heads)
        return out.flatten(2).unflatten(1, current.shape[2:])

    def _split_position(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Splits p + flow into its integral base (int64) and decimal part, both (n, 2, h, w).

        The decimal is taken from the position, not from the flow: the two differ in float32.
        """
        height, width = flow.shape[-2:]
        flow = flow.to(wide_dtype(flow))
        position = flow + pixel_grid(height, width, device=flow.device, dtype=flow.dtype)
        base = position.floor()
        decimal = position - base
        # A cast of NaN or of a huge float to an integer is undefined, and would index anywhere.
        base = base.nan_to_num(nan=0.0).clamp(-FAR, FAR)
        return base.detach().long(), decimal

    def window_pixel(
        self, base: Tensor, i: int, j: int, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        """Finds pixel (i, j) of every window, in a frame of a size, from bases (n, 2, rows, w).

        Returns:
            (n, rows, w) its place in the frame's pixels, within the frame; and (n, rows, w) whether
            it lies there, or None if that makes no difference.
        """
        height, width = size
        y, x = base[:, 1] + i, base[:, 0] + j
        inside = None
        if self.padding_mode == "zeros":
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        return y.clamp(0, height - 1) * width + x.clamp(0, width - 1), inside

    def _query(self, current: Tensor, decimal: Tensor) -> Tensor:
        """Projects current features and decimals (Eq. 9) to (n, hw, heads, c / heads)."""
        tokens = self.beside_positions(current.flatten(2).transpose(1, 2))
        if self.encode_decimal:
            position = decimal.flip(1).flatten(2).transpose(1, 2)  # (n, hw, 2) as y, x
            encoding = self.encode(position / (self.window_size + 1e-6))
            tokens = (tokens + encoding).to(self.q.weight.dtype)
        return self.q(tokens).unflatten(-1, (self.num_heads, -1))

    def _window_tables(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Projects the window's encodings (Eq. 14): keys and values, (w * w, c) each."""
        w = self.window_size
        if not self.encode_window:
            zeros = torch.zeros(w * w, self.channels, device=flow.device)
            return zeros, zeros
        encoding = self.window_encoding(flow.device, wide_dtype(self.k.weight))
        with full_precision(flow.device):
            keys, values = (
                encoding @ layer.weight.to(encoding.dtype).t() for layer in (self.k, self.v)
            )
        return keys, values

    def beside_positions(self, tokens: Tensor) -> Tensor:
        """Features (..., c) with zeros where only the encodings have channels."""
        extra = self.position_channels
        return nn.functional.pad(tokens, (0, extra)) if extra else tokens

    def encode(self, position: Tensor) -> Tensor:
        """Encodes (..., 2) positions in (..., c + position_channels)."""
        encoding = sinusoidal_encoding(position, self.channels)
        if not self.position_channels:
            return encoding
        return torch.cat((encoding, sinusoidal_encoding(position, self.position_channels)), -1)

    def window_encoding(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Returns the encodings of the window's pixels, row by row (Eq. 14): w * w rows."""
        w = self.window_size
        index = pixel_grid(w, w, device=device, dtype=dtype).flip(0).flatten(1).t()  # (w * w, 2)
        return self.encode(index / (w - 1 + 1e-6))
