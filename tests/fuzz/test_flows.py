"""Wrong flow files and copies of Sintel are refused in one line, or what they give can be used."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from iart_plugin.commands.prepare_sintel import main as prepare_sintel
from iart_plugin.data import SintelFlowDataset, read_flow
from tests.fuzz.malformed_flows import damaged_flow_files, damaged_sintel, write_sintel

REFUSALS = (ValueError, OSError)


def assert_one_line(error: BaseException, name: str, what: str) -> None:
    """The message is one line that names the file."""
    text = str(error)
    assert name in text and len(text.splitlines()) == 1 and len(text) < 1000, f"{what}: {text}"


def test_flow_files(tmp_path, fuzz_seed) -> None:
    read = refused = 0
    for what, path in damaged_flow_files(tmp_path, seed=fuzz_seed, count=200):
        try:
            flow = read_flow(path)
        except REFUSALS as error:
            assert_one_line(error, path.name, what)
            refused += 1
            continue
        assert flow.dtype == np.float32 and flow.ndim == 3 and flow.shape[2] == 2, what
        known = np.isfinite(flow)
        assert (np.abs(flow[known]) < 1e9).all(), what
        assert (known[..., 0] == known[..., 1]).all(), what
        read += 1
    assert read > 20 and refused > 100
    print(f"\nflow files: 200 of 200 held, {read} read")


def test_copies_of_sintel(tmp_path, fuzz_seed) -> None:
    read = refused = 0
    for index, (what, root) in enumerate(damaged_sintel(tmp_path, seed=fuzz_seed, count=60)):
        options = {"num_frames": (None, 2)[index % 2], "on_missing": ("error", "skip")[index // 30]}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                items = list(SintelFlowDataset(root, **options))
        except REFUSALS as error:
            assert_one_line(error, "", what)
            assert str(root) in str(error) or "files of clip" in str(error), f"{what}: {error}"
            refused += 1
            continue
        for item in items:
            t, _, h, w = item["lq"].shape
            assert item["gt"].shape == (t, 3, 4 * h, 4 * w), what
            assert item["flows"].shape == (t - 1, 2, h, w), what
            assert item["valid"].shape == (t - 1, 1, h, w), what
            assert all(torch.isfinite(item[key]).all() for key in ("lq", "gt", "flows")), what
        read += 1
    assert read > 3 and refused > 20
    print(f"\ncopies of Sintel: 60 of 60 held, {read} read")


def test_the_undamaged_copy_is_read(tmp_path) -> None:
    """What the other test refuses, it refuses for its damage."""
    write_sintel(tmp_path)
    assert [len(item["lq"]) for item in SintelFlowDataset(tmp_path)] == [3, 3]


def test_preparing_ends_without_a_trace(tmp_path, fuzz_seed, capsys) -> None:
    codes = set()
    for what, root in damaged_sintel(tmp_path, seed=1000 + fuzz_seed, count=12):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codes.add(prepare_sintel([str(root), "--partial"]))
        assert "Traceback" not in capsys.readouterr().err, what
    assert codes == {0, 1}
