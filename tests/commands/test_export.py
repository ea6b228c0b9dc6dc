"""ONNX against PyTorch, run by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from iart_plugin.archs import IACNN, IART
from iart_plugin.commands import export as exporting
from iart_plugin.commands.export import RecurrentCell, check_onnx, export_onnx, select_part
from iart_plugin.flow import clip_flows

pytestmark = pytest.mark.filterwarnings("ignore:.*axis name:UserWarning")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return IACNN(num_feat=8, num_block=1).eval()


@pytest.fixture(scope="module")
def alignment_file(network, tmp_path_factory):
    """Written by the command line, which checks it once itself."""
    folder = tmp_path_factory.mktemp("alignment")
    weights, path = folder / "weights.pth", folder / "alignment.onnx"
    torch.save({"params": network.state_dict()}, weights)
    assert exporting.main(["--weights", str(weights), "-o", str(path)]) == 0
    return path


def test_alignment(network, alignment_file):
    model = onnx.load(alignment_file)
    onnx.checker.check_model(model)
    assert model.opset_import[0].version >= 18
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [bool(d.dim_param) for d in shape] == [True, False, True, True]
    assert [i.name for i in model.graph.input] == ["reference", "current", "flow"]
    sizes = [(1, 5, 64), (4, 33, 2), (1, 90, 160)]
    assert check_onnx(select_part(network, "alignment"), alignment_file, sizes=sizes) < 1e-5


def test_a_wrong_file_is_noticed(alignment_file):
    """The check is able to fail: another network's weights are not taken for these."""
    torch.manual_seed(9)
    other = IACNN(num_feat=8, num_block=1).eval()
    assert check_onnx(select_part(other, "alignment"), alignment_file) > 1e-3


def test_cells_make_up_the_whole_network(network, tmp_path):
    """The forward branch's cell in onnxruntime, the loop here: the network's own result."""
    export_onnx(select_part(network, "bidirectional-cell"), tmp_path / "cell.onnx")
    forward_cell = onnxruntime.InferenceSession(tmp_path / "cell.onnx")
    backward_cell = RecurrentCell(network, direction="backward", bidirectional=True)
    clip = torch.rand(1, 4, 3, 17, 22, generator=torch.Generator().manual_seed(1))
    zeros, still = torch.zeros(1, 8, 17, 22), torch.zeros(1, 2, 17, 22)
    with torch.no_grad():
        expected = network(clip)[0]
        forward, backward = clip_flows(network.spynet, clip)
        behind, previous = {}, zeros
        for i in (3, 2, 1, 0):
            flow = still if i == 3 else backward[:, i]
            previous = behind[i] = backward_cell(clip[:, i], previous, flow, zeros)[0]
    previous = zeros.numpy()
    for i in range(4):
        flow = still if i == 0 else forward[:, i - 1]
        feed = {"frame": clip[:, i].numpy(), "previous": previous, "flow": flow.numpy()}
        feed["other"] = behind[i].numpy()
        previous, hr_frame = forward_cell.run(["features", "hr_frame"], feed)
        np.testing.assert_allclose(hr_frame[0], expected[i].numpy(), atol=1e-5)


def test_causal_cell_has_three_inputs(network):
    part = select_part(network, "cell")
    assert part.inputs == ("frame", "previous", "flow")
    frame, previous, flow = part.example(1, 9, 13)
    with torch.no_grad():
        features, hr_frame = part.module(frame, previous, flow)
        same, _ = RecurrentCell(network, bidirectional=True)(
            frame, previous, flow, torch.zeros_like(features)
        )
    assert features.shape == (1, 8, 9, 13)
    assert hr_frame.shape == (1, 3, 36, 52)
    assert torch.equal(same, features)


def test_alignment_of_ia_rt():
    network = IART(mid_channels=8, embed_dim=12, depths=(1,), num_heads=(2,))
    assert select_part(network, "alignment").channels == (12, 12, 2)
    with pytest.raises(ValueError, match="not IART"):
        select_part(network, "cell")


def test_refused(network, tmp_path):
    with pytest.raises(ValueError, match="--part nonsense"):
        select_part(network, "nonsense")
    with pytest.raises(ValueError, match="needs 18 or newer"):
        export_onnx(select_part(network, "cell"), tmp_path / "x.onnx", opset=17)
    plain = IACNN(num_feat=8, num_block=1, alignment="flow_warp", extractor=False)
    with pytest.raises(ValueError, match="aligns by FlowWarp"):
        select_part(plain, "alignment")
