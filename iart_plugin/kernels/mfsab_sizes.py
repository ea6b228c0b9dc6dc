"""The sizes of an MFSAB block, its weights, and how its kernels are cut into tiles."""

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .launching import padded

MAX_CHANNELS = 256
"""The most channels that fit the kernels' tiles."""

EPSILON = 1e-5


class BlockWeights(NamedTuple):
    """A block's weights: matrices in the dtype of products, then vectors as they are stored.

    The vectors before and after attention lie together, as the kernels sum up their gradients.

    Attributes:
        bias: (heads, tokens, tokens), added to the logits of every window, query by key.
    """

    bias: Tensor
    qkv_weight: Tensor
    proj_weight: Tensor
    fc1_weight: Tensor
    fc2_weight: Tensor
    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    proj_bias: Tensor
    fc2_bias: Tensor
    fc1_bias: Tensor


MATRICES = 5
"""How many of a block's weights are matrices."""


class PackedWeights(NamedTuple):
    """A block's weights in two tensors, because PyTorch takes time for each tensor of an operator.

    The entries follow each other without gaps. With 8 x 8 windows and channels that are a multiple
    of 4, each entry starts at a multiple of 16 bytes, as fast loads need it; vectors in half
    precision need a multiple of 8.

    Attributes:
        matrices: the matrices of :class:`BlockWeights`, one after the other.
        vectors: the vectors, likewise.
        heads: attention heads.
        hidden: channels between the MLP's two layers.
    """

    matrices: Tensor
    vectors: Tensor
    heads: int
    hidden: int


def pack(weights: BlockWeights, dtype: torch.dtype) -> PackedWeights:
    """Joins a block's weights, and casts the matrices to a dtype."""
    matrices = torch.cat([matrix.flatten() for matrix in weights[:MATRICES]]).to(dtype)
    vectors = torch.cat(weights[MATRICES:])
    return PackedWeights(matrices, vectors, len(weights.bias), len(weights.fc1_bias))


class Shape(NamedTuple):
    """The sizes of a block's work.

    Attributes:
        clips: number of clips.
        frames: frames of a clip, which are also those of a window.
        height: rows of a frame.
        width: columns of a frame.
        channels: channels of a token.
        heads: attention heads.
        hidden: channels between the MLP's two layers.
        window: (rows, columns) of a window.
        shift: whether the frames are rolled.
        frame: the frame that is wanted; all if negative.
        precision: how float32 is multiplied, see :func:`.launching.dot_precision`.
    """

    clips: int
    frames: int
    height: int
    width: int
    channels: int
    heads: int
    hidden: int
    window: tuple[int, int]
    shift: bool
    frame: int
    precision: str

    @property
    def wanted(self) -> int:
        """The number of frames of the output."""
        return self.frames if self.frame < 0 else 1

    @property
    def windows(self) -> tuple[int, int]:
        """The windows down and across a frame."""
        return -(-self.height // self.window[0]), -(-self.width // self.window[1])

    @property
    def is_padded(self) -> bool:
        """Whether some windows reach beyond the frame."""
        return self.height % self.window[0] != 0 or self.width % self.window[1] != 0

    @property
    def tokens(self) -> int:
        """The tokens of a window."""
        return self.frames * self.window[0] * self.window[1]

    def rows(self, frames: int) -> int:
        """The tokens of all clips in so many frames."""
        return self.clips * frames * self.height * self.width

    def on_windows(self) -> dict[str, Any]:
        """The arguments of every kernel that works on windows."""
        head_width = self.channels // self.heads
        return {
            "height": self.height,
            "width": self.width,
            "windows_down": self.windows[0],
            "windows_across": self.windows[1],
            "scale": head_width**-0.5,
            "T": self.frames,
            "FIRST": max(self.frame, 0),
            "FRAMES": self.wanted,
            "WH": self.window[0],
            "WW": self.window[1],
            "HEADS": self.heads,
            "D": head_width,
            "DP": padded(head_width),
            "SHIFT": self.shift,
            "PRECISION": self.precision,
        }

    def on_tokens(self, tiles: "Tiles") -> dict[str, Any]:
        """The arguments of every kernel that works token by token."""
        return {
            "epsilon": EPSILON,
            "C": self.channels,
            "CP": padded(self.channels),
            "ROWS": tiles.rows,
            "COLUMNS": tiles.columns,
            "PRECISION": self.precision,
            "num_warps": tiles.num_warps,
            "num_stages": tiles.num_stages,
        }

    def selection(self) -> dict[str, int]:
        """The arguments of the kernels that may read or write one frame of a clip."""
        pixels = self.height * self.width
        return {
            "in_rows": self.frames * pixels,
            "out_rows": self.wanted * pixels,
            "skipped": max(self.frame, 0) * pixels,
        }


def unpack(matrices: Tensor, vectors: Tensor, shape: Shape) -> BlockWeights:
    """Gives views of the entries of :class:`PackedWeights`, or of the gradients of both tensors."""
    c, heads, hidden, tokens = shape.channels, shape.heads, shape.hidden, shape.tokens
    shapes = ((heads, tokens, tokens), (3 * c, c), (c, c), (hidden, c), (c, hidden))
    parts = matrices.split_with_sizes([prod(shape) for shape in shapes])
    return BlockWeights(
        *(part.view(shape) for part, shape in zip(parts, shapes, strict=True)),
        *vectors.split_with_sizes([c, c, 3 * c, c, c, c, c, hidden]),
    )


class Tiles(NamedTuple):
    """How a kernel that works token by token is cut.

    Attributes:
        rows: tokens of a program.
        columns: output channels at a time.
        num_warps: warps of a program.
        num_stages: depth of the pipeline that loads weights.
    """

    rows: int
    columns: int
    num_warps: int
    num_stages: int


TOKEN_TILES = {
    "norm_qkv": (Tiles(64, 64, 4, 2), Tiles(64, 32, 8, 1), Tiles(32, 16, 4, 1)),
    "project_mlp": (Tiles(64, 64, 4, 1), Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),
    "project_mlp_backward": (Tiles(32, 32, 4, 1), Tiles(16, 32, 4, 1), Tiles(16, 16, 4, 1)),
    "norm_qkv_backward": (Tiles(32, 64, 4, 1), Tiles(32, 32, 4, 1), Tiles(32, 32, 4, 1)),
}
WINDOW_TILES = {
    "attention": ((64, 4, 2), (64, 4, 1), (32, 8, 1)),
    "query_gradient": ((64, 4, 2), (64, 4, 1), (32, 8, 1)),
    "key_value_gradient": ((64, 8, 1), (64, 8, 1), (16, 4, 1)),
    "bias_gradient": ((32, 4, 1), (32, 4, 1), (32, 4, 1)),
}
"""The tiles of each kernel for 16-bit types, for float32 computed in TF32, and for full float32.
They spill no registers and fit a card's shared memory, from compute capability 8.0 to 9.0 and at
every shipped size. For kernels that work on windows, the three numbers are the side of a square
tile of tokens, the warps and the stages."""


def token_tiles(kernel: str, like: Tensor, precision: str) -> Tiles:
    """The cut of a kernel that works token by token, for matrices like this one."""
    return TOKEN_TILES[kernel][_kind(like, precision)]


def window_tiles(kernel: str, like: Tensor, precision: str) -> dict[str, int]:
    """The arguments by which a kernel that works on windows is cut."""
    tokens, num_warps, num_stages = WINDOW_TILES[kernel][_kind(like, precision)]
    return {"TOKENS": tokens, "num_warps": num_warps, "num_stages": num_stages}


def _kind(like: Tensor, precision: str) -> int:
    if like.dtype.itemsize == 2:
        return 0
    return 1 if precision == "tf32" else 2
