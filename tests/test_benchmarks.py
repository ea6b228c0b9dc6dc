"""The benchmarks' command runs and writes what its page says; the figures are its own matter."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def test_a_row_that_takes_no_time(tmp_path):
    output = tmp_path / "benchmarks.json"
    command = [sys.executable, "-m", "benchmarks", "--only", "alignment", "--output", str(output)]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    (row,) = json.loads(output.read_text())
    assert set(row) == {"name", "ratio", "goal", "unit", "detail"}
    assert row["ratio"] > row["goal"]  # counted, not timed
    assert f"| {row['name']} |" in printed and "PyTorch" in printed


BARE = """
import sys
for name in ("basicsr", "mmagic", "mmengine", "mmcv", "av", "psutil", "natsort", "tqdm", "yaml",
             "safetensors", "matplotlib", "scipy", "skimage", "PIL", "lmdb", "requests", "einops",
             "torchvision"):
    sys.modules[name] = None  # as if it were not installed
from benchmarks import gpu
gpu.main(["--device", "cpu", "--tiny", "--only", "parts", "films", "--output", sys.argv[1]])
"""


def test_the_gpus_benchmark_needs_pytorch_alone(tmp_path):
    subprocess.run([sys.executable, "-c", BARE, str(tmp_path)], cwd=ROOT, check=True, timeout=500)
    from benchmarks import gpu

    page = tmp_path / "page.md"
    page.write_text(f"# Speed\n\n{gpu.BEGIN}\nold\n{gpu.END}\nmore\n")
    gpu.draw(page, tmp_path)
    text = page.read_text()
    assert "old" not in text
    assert "SPyNet, a pair of 16x24" in text
    assert "upscale by IA-RT, 4 frames" in text
    assert text.endswith("more\n")


def test_where_memory_runs_out_the_other_form_is_still_measured():
    from benchmarks import gpu
    from iart_plugin.fused import is_fused

    def work():
        if not is_fused():
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    row = gpu.both("row", "goal", work, torch.device("cpu"), loops=3)
    assert "| row | goal | out of memory | 0.0" in gpu.table([row])


@pytest.mark.skipif(importlib.util.find_spec("basicsr") is None, reason="BasicSR is not installed")
def test_basicsrs_basicvsr_stands_beside_ours():
    from benchmarks import gpu

    rows = list(gpu.rivals(gpu.TINY, torch.device("cpu")))
    assert len(rows) == 3
    assert all(0 < row.ms < math.inf and row.reference_ms > 0 for row in rows)


def test_launches_are_counted_without_a_gpu():
    from benchmarks.launches import aligned, count
    from iart_plugin.fused import fused
    from iart_plugin.ops import ImplicitAlignment

    counts = []
    for flag in (False, True):
        with fused(flag):
            work = (lambda: ImplicitAlignment(16, num_heads=2), lambda op: aligned(op, (8, 9)))
            counts.append(count(*work, half=True))
    reference, fast = counts
    assert fast.names["iart_plugin.implicit_alignment.default"] == 1
    assert fast.launches < reference.launches
    assert fast.moved < reference.moved
    assert fast.peak < reference.peak


def test_drift_is_measured_with_given_weights(tmp_path):
    from iart_plugin.archs import RealIACNN, save_checkpoint

    torch.manual_seed(0)
    weights, report = tmp_path / "network.pth", tmp_path / "drift.json"
    save_checkpoint(RealIACNN(8, 1, 1, num_heads=2), weights)
    command = [sys.executable, "-m", "benchmarks.drift", "--weights", str(weights)]
    command += ["--frames", "8", "--size", "48", "--chunks", "8", "4", "--json", str(report)]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    clean, bicubic, whole, halves = json.loads(report.read_text())["rows"]
    assert [whole["chunk"], halves["chunk"]] == [8, 4]
    assert bicubic["sharpness, begin"] == bicubic["sharpness, end"] == 1 < clean["sharpness, end"]
    assert whole["PSNR"] > 5 and whole["NIQE"] != bicubic["NIQE"]
    # With 10 frames of warm-up each chunk sees the whole clip, so the results are the same.
    assert halves["PSNR"] == whole["PSNR"]
    assert whole["at borders"] != whole["at borders"] and halves["at borders"] > 0  # NaN: no border
    assert "at borders" in printed


def test_drifts_own_network_is_basicvsr():
    """Without weights: a RealBasicVSR that leaves frames as they are and upscales as BasicVSR."""
    from benchmarks.drift import without_cleaning
    from iart_plugin.archs import load_checkpoint
    from iart_plugin.data.packaged import basicvsr_weights

    clip = torch.rand(1, 2, 3, 8, 8)
    basicvsr, _ = load_checkpoint(basicvsr_weights("REDS4"))
    with torch.no_grad():
        assert torch.equal(without_cleaning()(clip), basicvsr(clip))


def test_a_training_steps_launches_are_counted_too():
    from benchmarks.launches import count, train
    from iart_plugin.archs import IART

    counted = count(
        lambda: IART(mid_channels=8, embed_dim=12, depths=(2,), num_heads=(2,)),
        lambda network: train(network, torch.rand(1, 2, 3, 16, 16)),
        half=True,
        device="cpu",
    )
    blocks = 4 * 2 * 2  # branches, blocks and frames
    assert counted.names["iart_plugin.mfsab_block.default"] == blocks
    assert counted.names["iart_plugin.mfsab_block_backward.default"] == blocks
