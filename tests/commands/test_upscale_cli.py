"""The command line: messages, exit codes, models by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import iart_plugin.__main__ as entry
from iart_plugin.archs import IACNN, IART
from iart_plugin.commands.upscale import cli
from iart_plugin.inference import load_model
from tests.videos import Clip, moving_picture, read_back, write_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path):
    return write_clip(tmp_path / "in.mp4", Clip([moving_picture(i, 16, 24) for i in range(3)]))


def networks():
    torch.manual_seed(0)
    small = {"num_feat": 8, "num_block": 1}
    tiny = {"mid_channels": 8, "embed_dim": 12, "depths": (1,), "num_heads": (2,)}
    return {
        "ia-cnn": IACNN(**small, num_heads=2),
        "basicvsr": IACNN(num_feat=16, num_block=1, alignment="flow_warp", extractor=False),
        "ia-rt": IART(**tiny),
        "psrt": IART(**tiny, alignment="patch"),
    }


@pytest.fixture
def weights(tmp_path):
    def save(name, form="pth"):
        path = tmp_path / f"{name}.{form}"
        state = networks()[name].state_dict()
        if form == "safetensors":
            save_file({k: v.contiguous() for k, v in state.items()}, path)
        else:
            torch.save({"params": state}, path)
        return path

    return save


def call(source, output, *arguments):
    return cli.main([str(source), "-o", str(output), "--device", "cpu", *map(str, arguments)])


@pytest.mark.parametrize("form", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["ia-cnn", "ia-rt", "psrt", "basicvsr"])
def test_models_by_name(source, tmp_path, weights, name, form, capsys):
    output = tmp_path / "out.mp4"
    path = weights(name, form)
    assert call(source, output, "--model", name, "--weights", path) == 0
    assert len(read_back(output).frames) == 3
    said = capsys.readouterr().err
    assert path.name in said
    assert "sha256" in said
    assert load_model(name, path).digest[:12] in said


def test_basicvsr_weights_warm_start_ia_cnn(source, tmp_path, weights):
    output = tmp_path / "out.mp4"
    assert call(source, output, "--model", "ia-cnn", "--weights", weights("basicvsr")) == 0


def test_weights_of_another_model(source, tmp_path, weights, capsys):
    assert call(source, tmp_path / "o.mp4", "--model", "psrt", "--weights", weights("ia-cnn")) == 1
    assert "holds ia-cnn weights, not psrt: pass --model ia-cnn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4"], "missing.mp4: no such file"),
        (["{in}", "-o", "{tmp}/out.avi"], "cannot tell what to write"),
        (["{in}", "-o", "{tmp}/no/out.mp4"], "no such folder"),
        (["{in}", "--model", "ia-rt"], "--model ia-rt needs --weights FILE"),
        (["{in}", "--weights", "{tmp}/none.pth", "--model", "ia-rt"], "none.pth: no such file"),
        (["{in}", "--weights", "{in}", "--model", "ia-rt"], "in.mp4"),
        (["{in}", "--codec", "nonsense"], "--codec nonsense"),
        (["{in}", "--pix-fmt", "nonsense"], "--pixel-format nonsense"),
        (["{in}", "--chunk", "0"], "--chunk"),
        (["{in}", "--fps", "24"], "--fps"),
        (["{in}", "--tile", "20"], "overlap must be smaller"),
        (["{in}", "--device", "cuda:7"], "cuda:7"),
        ([""], "the name of an input or of the output is empty"),
        (["{in}", "-o", ""], "the name of an input or of the output is empty"),
        (["{in}", "--device", "meta"], "device meta: choose auto"),
        (["{in}", "--codec", "aac"], "--codec aac: this is an encoder of audio"),
        (["{text}"], "not a video that can be opened"),
        (["{sound}"], "no video stream"),
        (["{tmp}/*.png"], "no images"),
        (["{in}", "-o", "-", "--resume"], "a pipe can be neither"),
    ],
)
def test_errors_are_one_line(source, tmp_path, arguments, message, capsys):
    names = {"in": source, "tmp": tmp_path, "text": tmp_path / "a.txt", "sound": tmp_path / "a.wav"}
    names["text"].write_text("not a video")
    write_sound(names["sound"])
    given = [a.format(**names) for a in arguments]
    if "--tile" in given:
        big = [moving_picture(i, 64, 64) for i in range(2)]
        given[0] = str(write_clip(tmp_path / "big.mp4", Clip(big)))
    given += [] if "-o" in given else ["-o", str(tmp_path / "out.mp4")]
    given += [] if "--model" in given else ["--model", "bicubic"]
    if "cuda:7" in given and torch.cuda.device_count() > 7:
        pytest.skip("there is such a GPU")
    assert cli.main([*given, "-q"]) == cli.EXIT_ERROR
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1, said
    assert "Traceback" not in said


def write_sound(path):
    import av
    import numpy as np

    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        stream.codec_context.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def test_verbose_shows_the_trace(tmp_path, capsys):
    assert cli.main(["missing.mp4", "-o", str(tmp_path / "o.mp4"), "--model", "bicubic", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_progress_says_frames_rate_and_time_left(source, tmp_path, capsys):
    assert call(source, tmp_path / "out.mp4", "--model", "bicubic") == 0
    said = capsys.readouterr().err
    assert "3/3 [00:0" in said
    assert "frame/s" in said


def test_dry_run(source, tmp_path, weights, capsys):
    assert call(source, tmp_path / "o.mp4", "--weights", weights("ia-cnn"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "s a frame" in said
    assert not (tmp_path / "o.mp4").exists()


def test_entry_point(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["iart_plugin"])
    assert entry.main() == 0
    assert "upscale" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["iart_plugin", "nonsense"])
    assert entry.main() == 2
    assert "no command 'nonsense'" in capsys.readouterr().err


def test_needs_neither_framework(source, tmp_path):
    """In a fresh interpreter that cannot import them, by the script in tools/."""
    script = (
        "import sys, runpy\n"
        "sys.modules['av'] = None\n"
        "from iart_plugin.inference import load_model, upscale\n"  # the library needs no PyAV
        "del sys.modules['av']\n"
        "for name in ('basicsr', 'mmagic', 'mmengine', 'mmcv'): sys.modules[name] = None\n"
        "sys.argv[0] = 'upscale_video.py'\n"
        "runpy.run_path('tools/upscale_video.py', run_name='__main__')\n"
    )
    arguments = [str(source), "-o", str(tmp_path / "out.mp4"), "--model", "bicubic", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(read_back(tmp_path / "out.mp4").frames) == 3
