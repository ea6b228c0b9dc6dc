"""The same weights on the same frames through BasicSR's tester and through MMagic's.

Both take the mean over a clip's frames and then over the clips, on Y. BasicSR rounds to uint8 and
computes in float64; MMagic clamps without rounding and computes in float32. Rounding adds an error
of about 1/12 of a grey level squared (less on Y), which is what is left between the two.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.mmagic.mmagic_driver import CONFIGS, ROOT, run, tool

# These mend what keeps the two frameworks from being imported.
pytest.importorskip("iart_plugin.basicsr")
pytest.importorskip("iart_plugin.mmagic")
data = pytest.importorskip("skimage.data")

CLIPS = {"astronaut": (0, 180), "coffee": (60, 200)}
FRAMES = 3
HEIGHT, WIDTH = 96, 128


@dataclass
class Tested:
    """Means over the clips, and BasicSR's pictures beside the ground truth."""

    basicsr: dict[str, float]
    mmagic: dict[str, float]
    pictures: dict[str, list[tuple[np.ndarray, np.ndarray]]]


@pytest.fixture(scope="module")
def tested(tmp_path_factory, basicvsr_weights) -> Tested:
    weights = basicvsr_weights
    root = tmp_path_factory.mktemp("same_numbers")
    _write_vid4(root / "data" / "Vid4")
    log = run(
        [
            *(sys.executable, ROOT / "tools" / "basicsr_test.py"),
            *("-opt", ROOT / "configs" / "basicsr" / "test" / "BasicVSR_Vid4.yml"),
            *("--force_yml", "datasets:test:dataroot_gt=data/Vid4/GT"),
            *("datasets:test:dataroot_lq=data/Vid4/BIx4", f"path:pretrain_network_g={weights}"),
        ],
        root,
    )
    by_basicsr = {
        name.upper(): float(value) for name, value in re.findall(r"# (psnr|ssim):\s+([\d.]+)", log)
    }
    config = CONFIGS / "ia_cnn" / "basicvsr_c64b30_vid4-bi.py"
    log = run([sys.executable, tool("test"), config, weights, "--work-dir", "mmagic"], root)
    found = re.findall(r"VID4-BIx4-Y/(PSNR|SSIM): ([\d.]+)", log)
    return Tested(by_basicsr, {k: float(v) for k, v in found}, _pictures(root))


def _write_vid4(folder: Path) -> None:
    """Clips that pan over photographs by five pixels a frame."""
    meta = []
    for name, (top, left) in CLIPS.items():
        photograph = cv2.cvtColor(getattr(data, name)(), cv2.COLOR_RGB2BGR)
        for i in range(FRAMES):
            x = left + 5 * i
            frame = photograph[top : top + HEIGHT, x : x + WIDTH]
            small = cv2.resize(frame, (WIDTH // 4, HEIGHT // 4), interpolation=cv2.INTER_AREA)
            for kind, image in (("GT", frame), ("BIx4", small)):
                (folder / kind / name).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / kind / name / f"{i:08d}.png"), image)
        meta.append(f"{name} {FRAMES} ({HEIGHT},{WIDTH},3)\n")
    (folder / "meta_info_Vid4_GT.txt").write_text("".join(meta))


def _pictures(root: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    pictures = {}
    for name in CLIPS:
        saved = sorted(root.glob(f"results/**/{name}/*.png"))
        truth = sorted((root / "data" / "Vid4" / "GT" / name).glob("*.png"))
        assert len(saved) == len(truth) == FRAMES
        pictures[name] = [
            (cv2.imread(str(one)), cv2.imread(str(other)))
            for one, other in zip(saved, truth, strict=True)
        ]
    return pictures


def _mean(tested: Tested, metric) -> float:
    clips = [np.mean([metric(*pair) for pair in pairs]) for pairs in tested.pictures.values()]
    return float(np.mean(clips))


def test_the_two_testers_differ_by_rounding_alone(tested):
    """Uniform rounding on RGB adds (0.257^2 + 0.504^2 + 0.098^2) / 12 to the squared error of Y.

    For clips of 27.7 and 33.9 dB that is 0.0011 and 0.0046 dB; measured were 0.0021 in the mean,
    less because clamped pixels are not rounded, and 0.0002 of SSIM.
    """
    assert tested.basicsr.keys() == tested.mmagic.keys() == {"PSNR", "SSIM"}
    assert 20 < tested.mmagic["PSNR"] < 40
    difference = tested.mmagic["PSNR"] - tested.basicsr["PSNR"]
    assert 1e-3 < difference < 3e-3
    assert 0 <= tested.mmagic["SSIM"] - tested.basicsr["SSIM"] < 4e-4


def test_fed_the_same_rounded_frames_they_agree(tested):
    from basicsr.metrics import calculate_psnr, calculate_ssim
    from mmagic.evaluation.metrics.psnr import psnr
    from mmagic.evaluation.metrics.ssim import ssim

    y = {"crop_border": 0, "test_y_channel": True}
    ours = {"convert_to": "Y", "channel_order": "BGR"}
    for metric, theirs, tolerance in (
        ("PSNR", (calculate_psnr, psnr), 1e-4),
        ("SSIM", (calculate_ssim, ssim), 1e-5),
    ):
        by_basicsr = _mean(tested, lambda a, b, f=theirs[0]: f(a, b, **y))
        by_mmagic = _mean(tested, lambda a, b, f=theirs[1]: f(a, b, **ours))
        assert by_mmagic == pytest.approx(by_basicsr, abs=tolerance)
        # And it is these pictures whose figure the tester printed, to four decimals.
        assert by_basicsr == pytest.approx(tested.basicsr[metric], abs=6e-5)
