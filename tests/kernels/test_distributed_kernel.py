"""Training with the kernels in several processes."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.fused import fused
from tests.kernels.harness import assert_agrees

PREPARATION = """
import torch
from iart_plugin.archs import AlignmentStudyNet

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = AlignmentStudyNet(
    embed_dim=8, mid_channels=4, hr_channels=4, depths=(1,), num_heads=2, window_size=(4, 4)
)
network = network.eval().to(device)  # eval() keeps stochastic depth from dropping anything
lqs = torch.rand(2, 2, 3, 5, 4).to(device)
flows = torch.randn(2, 1, 2, 5, 4).to(device)
"""

TRAINING = """
import sys
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from iart_plugin.kernels.availability import failures, reason_against

assert reason_against(torch.device(device), torch.float32) is None
distributed.init_process_group("gloo")
clip = slice(distributed.get_rank(), distributed.get_rank() + 1)
network = DistributedDataParallel(network)
for _ in range(2):  # the second step fails if the first one left a weight without a gradient
    network.zero_grad()
    network(lqs[clip], flows[clip]).square().mean().backward()
assert not failures()
if distributed.get_rank() == 0:
    torch.save([weight.grad.cpu() for weight in network.parameters()], sys.argv[1])
distributed.destroy_process_group()
"""


def test_processes_get_the_gradients_of_the_whole_batch(tmp_path):
    """Two processes with a clip each, against the reference form with both clips."""
    (tmp_path / "train.py").write_text(PREPARATION + TRAINING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*command, str(tmp_path / "train.py"), str(tmp_path / "gradients.pt")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = {}
    exec(PREPARATION, found)
    network: AlignmentStudyNet = found["network"]
    with fused(False):
        network(found["lqs"], found["flows"]).square().mean().backward()
    averaged = torch.load(tmp_path / "gradients.pt")
    for ours, weight in zip(averaged, network.parameters(), strict=True):
        assert_agrees(ours, weight.grad.cpu())
