"""Clips with exact optical flow and occlusions, in Sintel's layout, made from photographs.

A clip is a stack of textured layers. Layer 0 fills the plane, and the others are smooth blobs.
Every layer has its own motion, given by one homography for each frame: translation, rotation,
scale, shear and perspective, smooth in time and never a whole number of pixels. The rest follows
from geometry:

* a pixel shows the topmost layer at its centre, at layer coordinates ``p = H_t^-1 q``;
* its flow is ``H_{t+1} p - q``, exact in float64;
* it is occluded where another layer lies over ``H_{t+1} p`` in the next frame, or the frame ends.

A pixel's colour is the mean over a grid of samples inside it. This approximates an exact box
filter, so that anti-aliasing is the same at every sub-pixel shift. There is no motion blur. The
photographs come with scikit-image, test clips show other photographs than training clips, and the
seed decides everything. You can also use your own photographs: see :func:`load_photograph`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from iart_plugin.data.flow_io import write_flow
from iart_plugin.data.recipe import record_recipe
from iart_plugin.files import write_atomically
from iart_plugin.pictures import read_picture, write_png

TRAIN_PHOTOGRAPHS = ("astronaut", "chelsea", "brick", "grass", "rocket", "hubble_deep_field")
TEST_PHOTOGRAPHS = ("motorcycle_left", "coffee", "gravel")
LARGEST_TEXTURE = 720  # lines; photographs of at least twice as many are sharp at this size


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One textured sheet.

    Attributes:
        texture: ``(h, w, 3)`` float32 in 0..255, continued by mirroring.
        texture_from_layer: ``(3, 3)``, layer coordinates to texture pixels.
        motion: ``(t, 3, 3)``, layer coordinates to frame pixels, one matrix a frame.
        radii: ``(k, 2)`` amplitude and phase of the outline's harmonics, the mean radius first;
            ``None`` for a layer without an edge.
    """

    texture: np.ndarray
    texture_from_layer: np.ndarray
    motion: np.ndarray
    radii: np.ndarray | None = None

    def covers(self, points: np.ndarray) -> np.ndarray:
        """Whether layer coordinates ``(n, 2)`` lie inside the outline, bool ``(n,)``."""
        if self.radii is None:
            return np.ones(len(points), dtype=bool)
        angle = np.arctan2(points[:, 1], points[:, 0])
        order = np.arange(1, len(self.radii))[:, None]
        waves = self.radii[1:, :1] * np.cos(order * angle + self.radii[1:, 1:])
        return np.hypot(points[:, 0], points[:, 1]) < self.radii[0, 0] * (1 + waves.sum(axis=0))

    def colour(self, points: np.ndarray) -> np.ndarray:
        """Bicubic texture lookup at layer coordinates ``(n, 2)``: ``(n, 3)``."""
        texels = apply_homography(self.texture_from_layer, points)
        height, width = self.texture.shape[:2]
        grid = torch.from_numpy(2 * texels / np.array([width - 1, height - 1]) - 1).float()
        # OpenCV's remap would round positions to 1/32 of a texel.
        sampled = F.grid_sample(
            torch.from_numpy(self.texture).permute(2, 0, 1)[None],
            grid[None, None],
            mode="bicubic",
            padding_mode="reflection",
            align_corners=True,
        )
        return sampled[0, :, 0].T.numpy()


@dataclass(frozen=True, kw_only=True)
class FlowClip:
    """A rendered clip.

    Attributes:
        frames: ``(t, h, w, 3)`` uint8, RGB.
        flows: ``(t - 1, h, w, 2)`` float32, frame t to t + 1, x then y, in pixels.
        occlusions: ``(t - 1, h, w)`` bool, not visible in frame t + 1.
    """

    frames: np.ndarray
    flows: np.ndarray
    occlusions: np.ndarray


def apply_homography(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points ``(n, 2)`` by a ``(3, 3)`` matrix."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[:, :2] / mapped[:, 2:]


def render_clip(layers: Sequence[Layer], height: int, width: int, *, samples: int = 4) -> FlowClip:
    """Render layers, the first one lowest.

    Args:
        layers: At least one; the first must have no outline. All have the same number of frames.
        height: Rows of a frame.
        width: Columns of a frame.
        samples: The anti-aliasing grid is ``samples`` x ``samples`` in every pixel.

    Returns:
        Frames, exact flow and occlusions.

    Raises:
        ValueError: If the lowest layer has an outline or the layers' lengths differ.
    """
    if not layers or layers[0].radii is not None:
        raise ValueError("the lowest layer must fill the frame: radii=None")
    lengths = {len(layer.motion) for layer in layers}
    if len(lengths) != 1:
        raise ValueError(f"all layers need the same number of frames, got {sorted(lengths)}")
    num_frames = lengths.pop()
    steps = range(num_frames - 1)
    frames = np.stack([_render_frame(layers, t, height, width, samples) for t in range(num_frames)])
    fields = [_flow_and_occlusion(layers, t, height, width) for t in steps]
    flows = np.array([flow for flow, _ in fields], np.float32).reshape(-1, height, width, 2)
    hidden = np.array([mask for _, mask in fields], bool).reshape(-1, height, width)
    return FlowClip(frames=frames, flows=flows, occlusions=hidden)


def random_clip(
    seed: int,
    *,
    num_frames: int = 10,
    height: int = 256,
    width: int = 256,
    num_layers: int = 4,
    speed: float = 6.0,
    photographs: Sequence[str | Path] = TRAIN_PHOTOGRAPHS,
    samples: int = 4,
) -> FlowClip:
    """Render a random clip.

    Args:
        seed: The same seed and arguments give the same clip.
        num_frames: Number of frames.
        height: Rows of a frame.
        width: Columns of a frame.
        num_layers: Layers, the background included.
        speed: Largest speed of a layer's centre in pixels a frame.
        photographs: Names or files to take textures from, see :func:`load_photograph`.
        samples: See :func:`render_clip`.

    Returns:
        The rendered clip.
    """
    if num_frames < 1 or num_layers < 1:
        raise ValueError(f"num_frames {num_frames} and num_layers {num_layers} must be positive")
    rng = np.random.default_rng(seed)
    layers = [
        _random_layer(rng, num_frames, height, width, speed, photographs, is_background=i == 0)
        for i in range(num_layers)
    ]
    return render_clip(layers, height, width, samples=samples)


def write_dataset(
    root: str | Path,
    *,
    seed: int = 0,
    num_train: int = 20,
    num_test: int = 3,
    render: str = "clean",
    **clip_options,
) -> Iterator[tuple[str, bool]]:
    """Write random clips in Sintel's layout, with ``split.json`` and a record of the options.

    Complete clips are kept, so that a run that was stopped can be resumed.

    Args:
        root: The folder to hold ``training``.
        seed: Clip i of a split depends on the seed, the split and i only.
        num_train: Number of training clips.
        num_test: Number of test clips, made from other photographs.
        render: The folder of the frames, ``'clean'`` or ``'final'``.
        clip_options: ``num_frames``, ``height``, ``width``, ``num_layers``, ``speed`` and
            ``samples`` of :func:`random_clip`.

    Yields:
        Each clip's name and whether it was written now.

    Raises:
        ValueError: If the folder holds a set made with other options.
    """
    root = Path(root)
    record_recipe(root, {"seed": seed, "render": render, **clip_options})
    splits = {
        "train": [f"train_{i:03d}" for i in range(num_train)],
        "test": [f"test_{i:03d}" for i in range(num_test)],
    }
    write_atomically(root / "split.json", json.dumps(splits, indent=2) + "\n")
    for number, (split, names) in enumerate(splits.items()):
        photographs = TRAIN_PHOTOGRAPHS if split == "train" else TEST_PHOTOGRAPHS
        for index, name in enumerate(names):
            done = root / "training" / "flow" / name / ".complete"
            if not done.exists():
                clip_seed = int(np.random.SeedSequence([seed, number, index]).generate_state(1)[0])
                clip = random_clip(clip_seed, photographs=photographs, **clip_options)
                write_clip(root, name, clip, render=render)
                done.touch()
                yield name, True
            else:
                yield name, False


def write_clip(root: str | Path, name: str, clip: FlowClip, *, render: str = "clean") -> None:
    """Write one clip in Sintel's layout below ``root/training``; no vector is void."""
    training = Path(root) / "training"
    for number, frame in enumerate(clip.frames, start=1):
        write_png(training / render / name / f"frame_{number:04d}.png", frame)
    (training / "flow" / name).mkdir(parents=True, exist_ok=True)
    for number, (flow, hidden) in enumerate(zip(clip.flows, clip.occlusions, strict=True), start=1):
        write_flow(training / "flow" / name / f"frame_{number:04d}.flo", flow)
        mask = hidden.astype(np.uint8) * 255
        write_png(training / "occlusions" / name / f"frame_{number:04d}.png", mask)
        write_png(training / "invalid" / name / f"frame_{number:04d}.png", np.zeros_like(mask))


@lru_cache(maxsize=16)
def load_photograph(name: str | Path) -> np.ndarray:
    """Load a picture as a texture for layers, ``(h, w, 3)`` float32 in 0..255.

    Args:
        name: The name of a picture in scikit-image, or a file as a :class:`~pathlib.Path`. A file
            whose shorter side exceeds :data:`LARGEST_TEXTURE` is shrunk to it by averaging.

    Raises:
        ModuleNotFoundError: If scikit-image is needed but not installed.
        ValueError: If scikit-image has no picture of that name, or the file is not a picture.
    """
    import cv2

    if isinstance(name, Path):
        picture = read_picture(name)
        factor = LARGEST_TEXTURE / min(picture.shape[:2])
        if factor < 1:
            size = [round(factor * length) for length in picture.shape[1::-1]]
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return picture.astype(np.float32)

    import skimage.data

    folder = Path(skimage.data.__file__).parent
    for path in (folder / f"{name}.png", folder / f"{name}.jpg"):
        if path.exists():
            return read_picture(path).astype(np.float32)
    raise ValueError(f"scikit-image ships no picture {name!r} in {folder}")


def _render_frame(
    layers: Sequence[Layer], t: int, height: int, width: int, samples: int
) -> np.ndarray:
    inner = (np.arange(samples) + 0.5) / samples - 0.5
    rows = (np.arange(height)[:, None] + inner).ravel()
    columns = (np.arange(width)[:, None] + inner).ravel()
    points = _grid_points(rows, columns)
    colours = np.empty((len(points), 3), np.float32)
    owner = _topmost(layers, t, points)
    for index, layer in enumerate(layers):
        mine = owner == index
        if mine.any():
            local = apply_homography(np.linalg.inv(layer.motion[t]), points[mine])
            colours[mine] = layer.colour(local)
    means = colours.reshape(height, samples, width, samples, 3).mean(axis=(1, 3))
    return np.rint(means.clip(0, 255)).astype(np.uint8)


def _flow_and_occlusion(
    layers: Sequence[Layer], t: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    points = _grid_points(np.arange(height), np.arange(width))
    owner = _topmost(layers, t, points)
    target = np.empty_like(points)
    for index, layer in enumerate(layers):
        mine = owner == index
        step = layer.motion[t + 1] @ np.linalg.inv(layer.motion[t])
        target[mine] = apply_homography(step, points[mine])
    # A point moves with its layer's outline, so only a higher layer can hide it. Its own layer
    # could seem to, because of rounding errors.
    hidden = _topmost(layers, t + 1, target) > owner
    hidden |= (target < -0.5).any(axis=1)
    hidden |= (target > np.array([width, height]) - 0.5).any(axis=1)
    flow = (target - points).reshape(height, width, 2)
    return flow, hidden.reshape(height, width)


def _topmost(layers: Sequence[Layer], t: int, points: np.ndarray) -> np.ndarray:
    """Index of the highest layer at frame coordinates ``(n, 2)``."""
    owner = np.zeros(len(points), dtype=int)
    for index, layer in enumerate(layers[1:], start=1):
        local = apply_homography(np.linalg.inv(layer.motion[t]), points)
        owner[layer.covers(local)] = index
    return owner


def _grid_points(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def _random_layer(
    rng: np.random.Generator,
    num_frames: int,
    height: int,
    width: int,
    speed: float,
    photographs: Sequence[str | Path],
    *,
    is_background: bool,
) -> Layer:
    texture = load_photograph(photographs[rng.integers(len(photographs))])
    size = min(height, width)
    centre = np.array([width, height]) * (0.5 if is_background else rng.uniform(0.2, 0.8, 2))
    radii = None
    if not is_background:
        amplitudes = rng.uniform(0, 0.3, 6) / np.arange(1, 7)
        amplitudes[0] = size * rng.uniform(0.12, 0.28)
        radii = np.stack([amplitudes, rng.uniform(0, 2 * np.pi, 6)], axis=1)
    zoom = rng.uniform(0.8, 1.4)  # texture pixels per frame pixel
    place = rng.uniform(0.2, 0.8, 2) * np.array([texture.shape[1], texture.shape[0]])
    turn = rng.uniform(-np.pi, np.pi) if radii is not None else rng.uniform(-0.3, 0.3)
    return Layer(
        texture=texture,
        texture_from_layer=_similarity(zoom, turn, place),
        motion=_random_motion(rng, num_frames, centre, size, speed),
        radii=radii,
    )


def _random_motion(
    rng: np.random.Generator, num_frames: int, centre: np.ndarray, size: int, speed: float
) -> np.ndarray:
    """A smooth path of homographies ``(t, 3, 3)`` about ``centre`` (layer coordinates 0, 0)."""
    angle = rng.uniform(0, 2 * np.pi)
    # Speeds are uniform on a logarithmic scale, from a twentieth of the largest one on.
    velocity = speed * 20 ** -rng.uniform(0, 1) * np.array([np.cos(angle), np.sin(angle)])
    bend = rng.uniform(-0.1, 0.1)
    spin, growth, shear = rng.uniform(-1, 1, 3) * np.array([0.02, 0.01, 0.01])
    tilt = rng.uniform(-1, 1, 2) * 0.15 / size / max(num_frames, 10)
    motion = []
    for step in np.arange(num_frames) - (num_frames - 1) / 2:
        heading = np.array(
            [
                [np.cos(bend * step), -np.sin(bend * step)],
                [np.sin(bend * step), np.cos(bend * step)],
            ]
        )
        matrix = _similarity(np.exp(growth * step), spin * step, centre + heading @ velocity * step)
        bent = np.eye(3)
        bent[0, 1] = shear * step
        bent[2, :2] = tilt * step
        motion.append(matrix @ bent)
    return np.stack(motion)


def _similarity(scale: float, angle: float, origin: np.ndarray) -> np.ndarray:
    """Rotate and scale about (0, 0), then move that to ``origin``: ``(3, 3)``."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, origin[0]], [sine, cosine, origin[1]], [0, 0, 1]])
