"""The Hub's three methods, on local folders, and what is said without huggingface_hub."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iart_plugin.archs import (
    IACNN,
    IART,
    AlignmentStudyNet,
    CheckpointMismatch,
    RealIACNN,
)
from iart_plugin.inference import load_model

huggingface_hub = pytest.importorskip("huggingface_hub")

SMALL_RT = {"mid_channels": 8, "embed_dim": 12, "depths": (1,), "num_heads": (2,)}
NETWORKS = {
    "ia-rt": lambda: IART(**SMALL_RT),
    "psrt": lambda: IART(**SMALL_RT, alignment="patch"),
    "ia-cnn": lambda: IACNN(8, 1, num_heads=2, alignment_options={"position_channels": 4}),
    "basicvsr": lambda: IACNN(8, 1, alignment="flow_warp", extractor=False),
    "real-ia-cnn": lambda: RealIACNN(8, 1, 1, num_heads=4, clean_passes=1),
    "": lambda: AlignmentStudyNet(embed_dim=12, mid_channels=8, depths=(1,), num_heads=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_saved_folder_gives_the_same_network(name, tmp_path):
    network = NETWORKS[name]()
    network.save_pretrained(tmp_path)
    again = type(network).from_pretrained(tmp_path)
    assert not again.training
    assert str(again) == str(network)
    state = network.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    assert getattr(again, "options", None) == getattr(network, "options", None)
    assert getattr(again, "clean_passes", None) == getattr(network, "clean_passes", None)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name])
def test_commands_read_the_saved_weights(name, tmp_path):
    network = NETWORKS[name]()
    network.save_pretrained(tmp_path)
    loaded = load_model("auto", tmp_path / "model.safetensors")
    assert loaded.name == name and loaded.network.options == network.options


def test_the_config_holds_no_path_of_the_machine_that_saved_it(tmp_path):
    spynet = tmp_path / "spynet.pth"
    torch.save({"params": IACNN(8, 1).spynet.state_dict()}, spynet)
    IACNN(8, 1, spynet_path=str(spynet)).save_pretrained(tmp_path / "saved")
    spynet.unlink()
    config = json.loads((tmp_path / "saved" / "config.json").read_text(encoding="utf-8"))
    assert "spynet_path" not in config and config["num_feat"] == 8
    IACNN.from_pretrained(tmp_path / "saved")


def test_weights_of_another_network_are_refused(tmp_path):
    NETWORKS["basicvsr"]().save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatch, match="BasicVSR"):
        IART.from_pretrained(tmp_path, **SMALL_RT)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        IACNN.from_pretrained(tmp_path)


def test_a_folder_of_another_network_says_whose_it_is(tmp_path):
    IACNN(num_feat=8, num_block=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"holds weights of .*use IACNN\.from_pretrained"):
        IART.from_pretrained(tmp_path)  # whose num_heads is no single number


def test_push_uploads_the_saved_folder(monkeypatch):
    """Everything up to the network: the library's upload is replaced, since tests are offline."""
    uploaded = {}

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            uploaded[repo_id] = sorted(path.name for path in Path(folder_path).iterdir())

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    NETWORKS["ia-rt"]().push_to_hub("someone/ia-rt")
    assert uploaded == {"someone/ia-rt": ["README.md", "config.json", "model.safetensors"]}


def test_without_huggingface_hub_the_networks_work_and_name_the_extra():
    program = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from iart_plugin.archs import IACNN\n"
        "IACNN(8, 1).save_pretrained('nowhere')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert "pip install 'iart_plugin[hub]'" in last and last.startswith("ModuleNotFoundError")
