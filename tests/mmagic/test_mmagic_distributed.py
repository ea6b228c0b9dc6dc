"""Two processes over gloo, launched as MMagic launches them, against one with twice the batch."""

from __future__ import annotations

import pytest
import torch

from iart_plugin.archs import IACNN
from iart_plugin.archs.warm_start import ALIGNMENT_OPTIONS
from tests.mmagic.mmagic_driver import CONFIGS

ITERATIONS = 4
FROZEN = 2

OPTIONS = (
    f"train_cfg.max_iters={ITERATIONS}",
    f"param_scheduler.periods=[{ITERATIONS}]",
    f"custom_hooks.2.iterations={FROZEN}",
    # Every source of chance is off but the sampler's, which is seeded: the processes draw the
    # frames that one process draws. A clip of exactly the length has one segment.
    "train_dataloader.dataset.num_input_frames=4",
    "train_dataloader.dataset.data_root=data/Vid4",
    "train_dataloader.dataset.ann_file=meta_info_Vid4_GT.txt",
    "train_dataloader.dataset.data_prefix.img=BIx4",
    "train_dataloader.dataset.data_prefix.gt=GT",
    "train_dataloader.dataset.pipeline.5.flip_ratio=0.0",
    "train_dataloader.dataset.pipeline.6.flip_ratio=0.0",
    "train_dataloader.dataset.pipeline.7.transpose_ratio=0.0",
    "randomness.seed=3",
    "load_from=net_g.pth",
)

CONFIG = """
_base_ = {base!r}
custom_imports = dict(
    imports=['iart_plugin.mmagic', 'gradient_recorder'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='GradientRecorder')]
# Adam divides by the gradients' size, so rounding would grow; SGD leaves it as it is.
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01))
"""


@pytest.fixture(scope="module")
def gradients(workspace, train) -> list[dict]:
    """What each process recorded: the two, then the one. All start from a BasicSR checkpoint."""
    torch.manual_seed(5)
    network = IACNN(num_feat=8, num_block=1, num_heads=2, alignment_options=ALIGNMENT_OPTIONS)
    torch.save({"params": network.state_dict()}, workspace / "net_g.pth")
    config = workspace / "recording.py"
    config.write_text(
        CONFIG.format(base=str(CONFIGS / "ia_cnn" / "ia-cnn_c64b30_8xb1-300k_reds4.py"))
    )
    log = train("two", "--launcher", "pytorch", config=config, options=OPTIONS, processes=2)
    assert "net_g.pth: IACNN(num_feat=8, num_block=1" in log
    train("one", config=config, options=[*OPTIONS, "train_dataloader.batch_size=2"])
    names = ("two/gradients_0.pth", "two/gradients_1.pth", "one/gradients_0.pth")
    return [torch.load(workspace / name, weights_only=True) for name in names]


def test_gradients_are_those_of_one_process_with_twice_the_batch(gradients):
    first, second, one = (recorded["steps"] for recorded in gradients)
    assert len(first) == len(second) == len(one) == ITERATIONS
    for i in range(ITERATIONS):
        assert first[i].keys() == one[i].keys()
        for name, expected in one[i].items():
            assert torch.equal(first[i][name], second[i][name]), (i, name)
            error = (first[i][name] - expected).abs().max()
            assert error <= 1e-6 + 1e-4 * expected.abs().max(), (i, name)


def test_flow_network_is_released_in_every_process(gradients):
    for recorded in gradients:
        for i, step in enumerate(recorded["steps"]):
            # A bias on every key shifts all logits alike: its gradient is zero but for rounding.
            step = {name: g for name, g in step.items() if name != "alignment.k.bias"}
            flow = [g for name, g in step.items() if name.startswith("spynet.")]
            rest = [g for name, g in step.items() if not name.startswith("spynet.")]
            assert all(bool(g.any()) for g in rest)
            assert any(bool(g.any()) for g in flow) == (i >= FROZEN)


def test_requires_grad_never_changes(gradients):
    for recorded in gradients:
        assert all(all(step) for step in recorded["requires_grad"])
