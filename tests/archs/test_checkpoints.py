import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from iart_plugin.archs import (
    IACNN,
    IART,
    CheckpointMismatch,
    export_official,
    load_checkpoint,
    recognise,
    save_checkpoint,
)
from iart_plugin.archs.keys import check_fit

CNN = {"num_feat": 8, "num_block": 2}
RT = {"mid_channels": 8, "embed_dim": 12, "depths": [2, 1], "num_heads": [2, 3]}


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def mmagic_keys(state: dict) -> dict:
    """MMagic's names for a BasicVSR's keys."""
    out = {}
    for key, value in state.items():
        parts = key.split(".")
        if "spynet.basic_module" in key:
            parts[4:5] = [str(int(parts[4]) // 2), "conv"]
        key = ".".join(parts)
        for ours, theirs in (
            ("backward_trunk", "backward_resblocks"),
            ("forward_trunk", "forward_resblocks"),
            ("upconv1", "upsample1.upsample_conv"),
            ("upconv2", "upsample2.upsample_conv"),
        ):
            key = key.replace(ours, theirs)
        out[key] = value
    return out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: IACNN(**CNN),
        lambda: IACNN(**CNN, alignment="flow_warp", extractor=False),
        lambda: IART(**RT),
        lambda: IART(**RT, alignment="patch"),
    ],
    ids=["ia-cnn", "basicvsr", "ia-rt", "psrt"],
)
def test_a_file_says_what_it_is(build, suffix, tmp_path):
    network = build()
    path = tmp_path / f"weights{suffix}"
    save_checkpoint(network, path)
    loaded, info = load_checkpoint(path)
    assert type(loaded) is type(network)
    assert equal(loaded, network)
    assert not loaded.training
    assert info.container == ("params" if suffix == ".pth" else "")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: IACNN(16, 1, num_heads=4),
        lambda: IACNN(**CNN, alignment="patch"),
        lambda: IACNN(**CNN, alignment="deformable_conv"),
        lambda: IACNN(**CNN, alignment_options={"encode_decimal": False, "window_size": 3}),
        lambda: IART(**RT, alignment="flow_warp", alignment_options={"mode": "nearest"}),
    ],
    ids=["heads", "patch", "deformable", "window", "nearest"],
)
def test_what_shapes_do_not_tell_is_saved_with_them(build, suffix, tmp_path):
    network = build().eval()
    save_checkpoint(network, tmp_path / f"weights{suffix}")
    loaded, _ = load_checkpoint(tmp_path / f"weights{suffix}")
    assert loaded.options == network.options
    clip = torch.rand(1, 3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(clip), network(clip), atol=0, rtol=0)


def test_guessed_heads_are_announced_and_can_be_given(tmp_path):
    network = IACNN(16, 1, num_heads=4).eval()
    torch.save({"params": network.state_dict()}, tmp_path / "other.pth")
    with pytest.warns(UserWarning, match="taken to be 8"):
        load_checkpoint(tmp_path / "other.pth")
    loaded, _ = load_checkpoint(tmp_path / "other.pth", num_heads=4)
    assert loaded.options["num_heads"] == 4


def test_position_channels_are_seen_from_the_shapes(tmp_path):
    options = {"position_channels": 12, "padding_mode": "zeros"}
    network = IACNN(**CNN, num_heads=8, alignment_options=options).eval()
    torch.save({"params": network.state_dict()}, tmp_path / "other.pth")
    with pytest.warns(UserWarning, match="taken to be 8"):
        loaded, _ = load_checkpoint(tmp_path / "other.pth")
    assert equal(loaded, network)
    assert loaded.alignment.padding_mode == "zeros"
    message = "it has position_channels=12, the network position_channels=0"
    with pytest.raises(CheckpointMismatch, match=message):
        IACNN(**CNN).load_state_dict(network.state_dict())


def test_official_file_both_ways(tmp_path):
    network = IART(**RT)
    official = export_official(network)
    assert official["swin_backbone.forward_2.conv_first_feat.weight"].shape == (12, 64, 3, 3)
    assert official["implicit_warp.window_idx_offset"].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    index = official[
        "swin_backbone.backward_1.layers.0.residual_group.blocks.0.attn.relative_position_index"
    ]
    assert index.shape == (192, 192) and index.dtype == torch.int64
    torch.save({"params": official}, tmp_path / "official.pth")
    loaded, info = load_checkpoint(tmp_path / "official.pth")
    assert equal(loaded, network)
    assert info.recognised.options["num_heads"] == [2, 3]
    again = export_official(loaded)
    assert all(torch.equal(again[key], official[key]) for key in official)


def test_the_whole_default_network_round_trips_through_the_official_layout():
    with torch.device("meta"):
        network = IART()
    shapes = {key: value.shape for key, value in export_official(network).items()}
    found = recognise(shapes)
    assert found.options["embed_dim"] == 120 and found.options["mid_channels"] == 64
    assert found.options["depths"] == found.options["num_heads"] == [6, 6, 6]
    assert found.options["window_size"] == [3, 8, 8]


@pytest.mark.parametrize("prefix", ["", "generator.", "module."])
def test_mmagic_layout(prefix, tmp_path):
    network = IACNN(**CNN, alignment="flow_warp", extractor=False)
    state = {prefix + k: v for k, v in mmagic_keys(network.state_dict()).items()}
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "mmagic.pth")
    loaded, info = load_checkpoint(tmp_path / "mmagic.pth")
    assert equal(loaded, network)
    assert info.prefix == prefix


def test_mmengines_own_checkpoint_opens_without_mmengine(tmp_path):
    """A training's file has log buffers beside the weights, pickled objects of MMEngine's."""
    mmengine = pytest.importorskip("mmengine.logging")
    buffer = mmengine.HistoryBuffer()
    buffer.update(0.5)
    network = IACNN(**CNN)
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    hub = {"log_scalars": {"train/loss": buffer}, "resumed_keys": {"iter": np.int64(3)}}
    torch.save({"state_dict": state, "message_hub": hub}, tmp_path / "iter_4.pth")
    script = (
        "import sys; from iart_plugin.archs import load_checkpoint\n"
        f"network, info = load_checkpoint({str(tmp_path / 'iter_4.pth')!r})\n"
        "assert info.prefix == 'generator.' and 'mmengine' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_what_may_be_unpickled_stays_as_it_was(tmp_path):
    """PyTorch's context forgets what was allowed before it, as this package allows for MMagic."""
    script = (
        "import numpy, torch\n"
        "from iart_plugin.weight_files import _LogBuffer, numpy_globals, read_file\n"
        "name = 'mmengine.logging.history_buffer.HistoryBuffer'\n"
        "buffer = type('HistoryBuffer', (), {'__module__': name.rpartition('.')[0]})\n"
        "import sys, types; module = types.ModuleType(buffer.__module__)\n"
        "module.HistoryBuffer = buffer; sys.modules[buffer.__module__] = module\n"
        f"path = {str(tmp_path / 'log.pth')!r}\n"
        "torch.save({'buffer': buffer()}, path)\n"
        "torch.serialization.add_safe_globals(numpy_globals())\n"
        "before = set(map(str, torch.serialization.get_safe_globals()))\n"
        "assert isinstance(read_file(path)['buffer'], _LogBuffer)\n"
        "assert set(map(str, torch.serialization.get_safe_globals())) == before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_averaged_weights_are_preferred(tmp_path):
    plain, averaged = IACNN(**CNN), IACNN(**CNN)
    torch.save(
        {"params": plain.state_dict(), "params_ema": averaged.state_dict()}, tmp_path / "w.pth"
    )
    assert equal(load_checkpoint(tmp_path / "w.pth")[0], averaged)
    both = {f"generator.{k}": v for k, v in plain.state_dict().items()}
    both |= {f"generator_ema.{k}": v for k, v in averaged.state_dict().items()}
    torch.save({"state_dict": both}, tmp_path / "m.pth")
    assert equal(load_checkpoint(tmp_path / "m.pth")[0], averaged)


def test_loads_as_part_of_a_larger_model():
    network = IACNN(**CNN, alignment="flow_warp", extractor=False)
    holder = torch.nn.ModuleDict(
        {"generator": IACNN(**CNN, alignment="flow_warp", extractor=False)}
    )
    state = {f"generator.{k}": v for k, v in mmagic_keys(network.state_dict()).items()}
    holder.load_state_dict(state, strict=True)
    assert equal(holder["generator"], network)


@pytest.mark.parametrize(
    ("given", "network", "message"),
    [
        (lambda: IACNN(**CNN), lambda: IART(**RT), "holds an? IACNN, the network is an? IART"),
        (
            lambda: IART(**(RT | {"embed_dim": 24})),
            lambda: IART(**RT),
            "embed_dim=24, the network embed_dim=12",
        ),
        (
            lambda: IART(**(RT | {"depths": [1, 1]})),
            lambda: IART(**RT),
            r"depths=\[1, 1\], the network depths=\[2, 1\]",
        ),
        (lambda: torch.nn.Linear(2, 2), lambda: IART(**RT), "no known network"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(given, network, message):
    with pytest.raises(CheckpointMismatch, match=message) as raised:
        network().load_state_dict(given().state_dict(), strict=True)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("own", "saved", "differs"),
    [
        ({"num_heads": 2}, {"num_heads": 4}, "num_heads=4, the network's num_heads=2"),
        ({}, {"alignment_options": {"padding_mode": "zeros"}}, "padding_mode=zeros, .*=border"),
        ({}, {"alignment_options": {"window_size": 2}}, None),  # the default
    ],
)
def test_alignment_that_no_shape_tells_is_compared(own, saved, differs):
    network, given = (IACNN(**(CNN | options)) for options in (own, saved))
    fit = partial(check_fit, network, given.state_dict(), options=given.options)
    if differs:
        with pytest.raises(CheckpointMismatch, match=f"its alignment has {differs}"):
            fit(strict=True)
    else:
        fit(strict=True)
    fit(strict=False)


def test_few_differing_keys_are_listed():
    network = IACNN(**CNN)
    state = network.state_dict()
    del state["conv_hr.bias"]
    with pytest.raises(CheckpointMismatch, match=r"1 missing \(conv_hr.bias\)"):
        network.load_state_dict(state)


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load_checkpoint(tmp_path / "nowhere.pth")
    for name, content in (
        ("a.pth", b"no weights"),
        ("b.safetensors", b"no weights"),
        ("c.pt", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointMismatch, match=name):
            load_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointMismatch, match="not a state dict"):
        load_checkpoint(tmp_path / "list.pth")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatch, match="holds no IA-RT"):
        load_checkpoint(tmp_path / "other.pth")
    torch.save({"params": torch.zeros(2)}, tmp_path / "tensor.pth")
    with pytest.raises(CheckpointMismatch, match="entry 'params' is a Tensor"):
        load_checkpoint(tmp_path / "tensor.pth")
    whole = IACNN(**CNN).state_dict()
    torch.save(whole, tmp_path / "cut.pth")
    content = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointMismatch, match="cut.pth"):
        load_checkpoint(tmp_path / "cut.pth")
