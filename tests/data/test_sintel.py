"""The Sintel data set, on trees in its layout made here."""

import json
import shutil

import numpy as np
import pytest
import torch

from iart_plugin.data.augment import FlowAugmentation
from iart_plugin.data.degradation import bicubic_downsample
from iart_plugin.data.flow_grid import downsample_flow
from iart_plugin.data.flow_io import read_flow, write_flow
from iart_plugin.data.sintel import SintelFlowDataset
from iart_plugin.data.sintel_files import (
    SINTEL_FRAMES,
    clip_names,
    prepare_low_resolution,
    truncated,
)
from iart_plugin.pictures import read_picture, write_png

HEIGHT, WIDTH = 24, 36


def make_clip(root, clip, *, frames=4, height=HEIGHT, width=WIDTH, seed=0):
    rng = np.random.default_rng(seed)
    training = root / "training"
    for number in range(1, frames + 1):
        name = f"frame_{number:04d}"
        for render in ("clean", "final"):
            frame = rng.integers(0, 256, (height, width, 3), np.uint8)
            write_png(training / render / clip / f"{name}.png", frame)
        if number == frames:
            continue
        (training / "flow" / clip).mkdir(parents=True, exist_ok=True)
        flow = rng.normal(0, 3, (height, width, 2)).astype(np.float32)
        write_flow(training / "flow" / clip / f"{name}.flo", flow)
        for mask in ("occlusions", "invalid"):
            pixels = (rng.random((height, width)) < 0.2).astype(np.uint8) * 255
            write_png(training / mask / clip / f"{name}.png", pixels)


@pytest.fixture
def root(tmp_path):
    make_clip(tmp_path, "a", seed=1)
    make_clip(tmp_path, "b", frames=3, seed=2)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["a", "b"], "test": ["b"]}))
    return tmp_path


def test_item(root):
    data = SintelFlowDataset(root, num_frames=3, render="final")
    assert [item["key"] for item in data] == ["a/0001", "a/0002", "b/0001"]
    item = data[1]
    frame = read_picture(root / "training/final/a/frame_0003.png")
    np.testing.assert_array_equal(item["gt"][1].permute(1, 2, 0) * 255, frame)
    low = bicubic_downsample(frame, 4)
    np.testing.assert_array_equal((item["lq"][1] * 255).round().permute(1, 2, 0), low)
    assert {k: tuple(v.shape) for k, v in item.items() if k != "key"} == {
        "lq": (3, 3, 6, 9),
        "gt": (3, 3, 24, 36),
        "flows": (2, 2, 6, 9),
        "valid": (2, 1, 6, 9),
    }
    assert all(item[k].dtype == torch.float32 for k in ("lq", "gt", "flows", "valid"))


def test_windows(root):
    assert len(SintelFlowDataset(root)) == 2
    assert SintelFlowDataset(root)[0]["lq"].shape[0] == 4
    assert len(SintelFlowDataset(root, num_frames=2)) == 5
    assert len(SintelFlowDataset(root, clips="test", num_frames=1)) == 3
    assert SintelFlowDataset(root, num_frames=1)[0]["flows"].shape == (0, 2, 6, 9)
    assert len(SintelFlowDataset(root, clips=["a"], num_frames=4)) == 1
    with pytest.raises(ValueError, match="no run of 5 frames"):
        SintelFlowDataset(root, num_frames=5)


def test_flow_of_a_block_is_the_mean_of_its_usable_vectors():
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 2, (9, 12, 2)).astype(np.float32)
    void = rng.random((9, 12)) < 0.4
    void[4:8, 4:8] = True
    flow[void] = 1e9
    low, valid = downsample_flow(flow, 4, void=void, hidden=np.zeros_like(void))
    assert low.shape == (2, 3, 2) and low.dtype == np.float32
    for i in range(2):
        for j in range(3):
            block = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
            kept = flow[block][~void[block]]
            expected = kept.mean(axis=0) / 4 if len(kept) else np.zeros(2)
            np.testing.assert_allclose(low[i, j], expected, rtol=1e-5, atol=1e-7)
    assert not valid[1, 1]


def test_valid_needs_half_a_block_seen_and_a_target_inside():
    flow = np.zeros((8, 12, 2), np.float32)
    flow[4:, 8:, 0] = 4.0  # one low-resolution pixel beyond the last column
    hidden = np.zeros((8, 12), bool)
    hidden[:4, :4] = True
    hidden[0:2, 4:8] = True
    hidden[0:3, 8:12] = True
    _, valid = downsample_flow(flow, 4, void=np.zeros_like(hidden), hidden=hidden)
    assert valid.tolist() == [[False, True, False], [True, True, False]]


def test_prepared_frames_are_read_and_resumed(root):
    first = dict(prepare_low_resolution(root, clips=["a", "b"]))
    assert len(first) == 7 and all(first.values())
    made = SintelFlowDataset(root, num_frames=2)[0]
    path = root / "training/clean_bicubic_x4/a/frame_0001.png"
    write_png(path, np.full((6, 9, 3), 17, np.uint8))
    again = dict(prepare_low_resolution(root, clips=["a", "b"]))
    assert not any(again.values())
    read = SintelFlowDataset(root, num_frames=2)[0]
    assert (read["lq"][0] * 255 == 17).all() and not (made["lq"][0] * 255 == 17).all()
    write_png(path, np.zeros((5, 9, 3), np.uint8))
    with pytest.raises(ValueError, match=r"frame_0001\.png.*prepare-sintel"):
        SintelFlowDataset(root, num_frames=2)[0]
    path.write_bytes(b"half a file")
    assert sum(dict(prepare_low_resolution(root, clips=["a", "b"])).values()) == 1


def test_sizes_that_the_scale_does_not_divide_are_cropped(tmp_path):
    make_clip(tmp_path, "odd", frames=2, height=26, width=39)
    (tmp_path / "split.json").write_text('{"train": ["odd"]}')
    item = SintelFlowDataset(tmp_path)[0]
    assert item["lq"].shape == (2, 3, 6, 9) and item["gt"].shape == (2, 3, 24, 36)
    assert item["flows"].shape == (1, 2, 6, 9)
    frame = read_picture(tmp_path / "training/clean/odd/frame_0001.png")
    low = bicubic_downsample(frame, 4)[:6, :9]
    np.testing.assert_array_equal((item["lq"][0] * 255).round().permute(1, 2, 0), low)


@pytest.mark.parametrize(
    "missing",
    ["clean/a/frame_0002.png", "flow/a/frame_0002.flo", "occlusions/a/frame_0003.png"],
)
def test_missing_files_are_named_or_skipped(root, missing):
    (root / "training" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 files of clip a.*{missing}"):
        SintelFlowDataset(root, num_frames=2)
    keys = {item["key"] for item in SintelFlowDataset(root, num_frames=2, on_missing="skip")}
    lost = {
        "clean/a/frame_0002.png": {"a/0001", "a/0002"},
        "flow/a/frame_0002.flo": {"a/0002"},
        "occlusions/a/frame_0003.png": set(),
    }[missing]
    assert keys == {"a/0001", "a/0002", "a/0003", "b/0001", "b/0002"} - lost


def test_skipping_takes_a_clip_in_its_pieces(root):
    (root / "training/flow/a/frame_0002.flo").unlink()
    data = SintelFlowDataset(root, clips=["a"], on_missing="skip")
    assert [(item["key"], len(item["lq"])) for item in data] == [("a/0001", 2), ("a/0003", 2)]


def test_papers_split():
    train, test = clip_names("nowhere", "train"), clip_names("nowhere", "test")
    assert len(train) == 20 and set(test) == {"ambush_5", "market_6", "mountain_1"}
    assert not set(train) & set(test) and set(train) | set(test) == set(SINTEL_FRAMES)
    assert sum(SINTEL_FRAMES.values()) == 1064


def test_a_truncated_sintel_clip_is_noticed(tmp_path):
    make_clip(tmp_path, "ambush_6", frames=4)
    assert "ambush_6: 4 frames where Sintel has 20" in truncated(tmp_path, "clean", "ambush_6")
    (tmp_path / "split.json").write_text('{"train": ["ambush_6"]}')
    assert truncated(tmp_path, "clean", "ambush_6") is None


def test_a_set_without_masks_is_all_valid(root):
    for kind in ("occlusions", "invalid"):
        shutil.rmtree(root / "training" / kind)
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    for number in (1, 2):
        write_flow(root / f"training/flow/b/frame_{number:04d}.flo", flow)
    assert SintelFlowDataset(root, clips=["b"])[0]["valid"].min() == 1


def test_augmentation_is_applied(root):
    data = SintelFlowDataset(root, num_frames=2, augment=FlowAugmentation(crop_size=5))
    assert data[0]["gt"].shape == (2, 3, 20, 20) and data[0]["flows"].shape == (1, 2, 5, 5)


def test_estimated_flow_is_computed_once(root, tmp_path, monkeypatch):
    from iart_plugin.flow import SPyNet

    torch.manual_seed(0)
    network = SPyNet()
    weights = tmp_path / "spynet.pth"
    torch.save({"params": network.state_dict()}, weights)
    options = {"clips": ["b"], "flow": "spynet", "cache_dir": tmp_path / "cache"}
    item = SintelFlowDataset(root, flow_weights=weights, **options)[0]
    with torch.no_grad():
        expected = network(item["lq"][:-1], item["lq"][1:])
    torch.testing.assert_close(item["flows"], expected, rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / "cache/b").iterdir())) == 2
    other = tmp_path / "other.pth"
    torch.save({"params": SPyNet().state_dict()}, other)
    for changes in ({"flow_weights": other}, {"flow_weights": weights, "render": "final"}):
        with pytest.raises(ValueError, match=r"cache holds files made with (weights|render) = "):
            SintelFlowDataset(root, **options, **changes)
    shutil.move(tmp_path / "cache/recipe.json", tmp_path)
    with pytest.raises(ValueError, match=r"recipe.json, which would say.* is not"):
        SintelFlowDataset(root, flow_weights=weights, **options)
    shutil.move(tmp_path / "recipe.json", tmp_path / "cache")
    weights.unlink()  # no network is built any more
    with pytest.warns(UserWarning, match=r"spynet.pth is not a file.* whatever weights it is from"):
        again = SintelFlowDataset(root, flow_weights=weights, **options)[0]
    assert torch.equal(again["flows"], item["flows"])
    assert torch.equal(again["valid"], item["valid"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"render": "albedo"}, "render.*clean, final.*albedo"),
        ({"flow": "farneback"}, "flow.*gt, spynet, raft"),
        ({"on_missing": "ignore"}, "on_missing"),
        ({"clips": "validation"}, "clips.*validation"),
        ({"clips": []}, "empty"),
        ({"num_frames": 0}, "num_frames"),
        ({"scale": 0}, "scale"),
    ],
)
def test_refusals(root, options, match):
    with pytest.raises(ValueError, match=match):
        SintelFlowDataset(root, **options)


def test_fields_of_another_size_are_refused(root):
    with pytest.raises(FileNotFoundError, match="no folder 'training'"):
        SintelFlowDataset(root / "training")
    write_flow(root / "training/flow/a/frame_0001.flo", np.zeros((HEIGHT, WIDTH - 4, 2)))
    with pytest.raises(ValueError, match=r"flow/a/frame_0001\.flo.*\(24, 32\).*\(24, 36\)"):
        SintelFlowDataset(root)[0]


def test_unknown_vectors_are_no_flow(root):
    path = root / "training/flow/a/frame_0001.flo"
    clean = SintelFlowDataset(root, clips=["a"])[0]
    flow = read_flow(path)
    flow[:4, :4] = np.nan  # written as 1e10
    flow[4:6, 4:8] = np.nan
    write_flow(path, flow)
    item = SintelFlowDataset(root, clips=["a"])[0]
    assert item["flows"].abs().max() < 100
    assert (item["flows"][0, :, 0, 0] == 0).all() and item["valid"][0, 0, 0, 0] == 0
    assert (item["flows"][0, :, 1, 1] != clean["flows"][0, :, 1, 1]).any()
    assert torch.equal(item["flows"][0, :, 2:], clean["flows"][0, :, 2:])


def test_a_frame_of_another_size_is_named(root):
    write_png(root / "training/clean/a/frame_0003.png", np.zeros((HEIGHT, WIDTH + 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"clean/a/frame_0003\.png: size \(24, 40\).*\(24, 36\)"):
        SintelFlowDataset(root, clips=["a"])[0]


def test_a_picture_that_is_too_large_is_refused_by_its_header(root, monkeypatch):
    monkeypatch.setenv("IART_PLUGIN_MAX_PIXELS", str(HEIGHT * WIDTH))
    assert SintelFlowDataset(root, clips=["a"])[0]["lq"].shape[0] == 4
    write_png(root / "training/occlusions/a/frame_0002.png", np.zeros((999, 999), np.uint8))
    with pytest.raises(ValueError, match=r"occlusions/a/frame_0002\.png is 999x999, more than"):
        SintelFlowDataset(root, clips=["a"])[0]


def test_files_that_are_no_frames_do_not_count(root):
    for name in ("frame_0001_copy.png", "._frame_0002.png", "frame_99999999999.png", "frame_1.png"):
        (root / "training/clean/a" / name).write_bytes(b"no frame")
    assert len(SintelFlowDataset(root, clips=["a"])[0]["lq"]) == 4


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "is not JSON"),
        ('["a"]', "must be"),
        ('{"train": "a"}', "must be"),
        ('{"train": [1]}', "must be"),
        ('{"train": ["../a"]}', "must be"),
        ('{"train": [""]}', "must be"),
    ],
)
def test_a_damaged_split_is_named(root, content, fault):
    (root / "split.json").write_text(content)
    with pytest.raises(ValueError, match=rf"split\.json {fault}"):
        SintelFlowDataset(root)


def test_names_of_clips_lead_nowhere_else(root):
    with pytest.raises(ValueError, match=r"'\.\./clean/a', which is not the name of a clip"):
        SintelFlowDataset(root, clips=["../clean/a"])


def test_estimated_flow_that_is_not_finite_is_not_kept(root, tmp_path):
    from iart_plugin.flow import SPyNet

    network = SPyNet()
    with torch.no_grad():
        network.basic_module[0].basic_module[0].weight.fill_(1e30)  # finite, its output is not
    torch.save({"params": network.state_dict()}, tmp_path / "huge.pth")
    options = {"flow": "spynet", "flow_weights": tmp_path / "huge.pth", "cache_dir": tmp_path / "c"}
    with pytest.raises(ValueError, match=r"huge\.pth"):
        SintelFlowDataset(root, clips=["b"], **options)[0]
    assert not list(tmp_path.glob("c/*/*.flo"))


def test_estimated_flow_without_weights_is_refused(root):
    with pytest.raises(ValueError, match="SPyNet needs"):
        SintelFlowDataset(root, flow="spynet")[0]
