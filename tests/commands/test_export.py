"""Exported files, run by onnxruntime or by PyTorch, against the networks."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from iart_plugin.archs import IACNN, IART, AlignmentStudyNet, RealIACNN, save_checkpoint
from iart_plugin.archs.ia_rt import BRANCHES
from iart_plugin.commands import export as exporting
from iart_plugin.commands.export import compare, export
from iart_plugin.commands.export_parts import (
    RecurrentCell,
    TransformerCell,
    select_part,
    select_whole,
)
from iart_plugin.flow import clip_flows

pytestmark = pytest.mark.filterwarnings("ignore:.*axis name:UserWarning")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return IACNN(num_feat=8, num_block=1).eval()


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    return IART(mid_channels=8, embed_dim=8, depths=(2,), num_heads=(2,)).eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_checkpoint(network, path)
    return str(path)


@pytest.fixture(scope="module")
def alignment_file(weights):
    """Written by the command line, which checks it once itself."""
    path = weights.replace("weights.safetensors", "alignment.onnx")
    assert exporting.main(["--weights", weights, "-o", path]) == 0
    return path


def test_alignment(network, alignment_file):
    model = onnx.load(alignment_file)
    onnx.checker.check_model(model)
    assert model.opset_import[0].version >= 18
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [bool(d.dim_param) for d in shape] == [True, False, True, True]
    assert [i.name for i in model.graph.input] == ["reference", "current", "flow"]
    assert [o.name for o in model.graph.output] == ["aligned"]
    sizes = [(1, 5, 64), (4, 33, 2), (1, 90, 160)]
    program = exporting._load(alignment_file, ".onnx")
    assert compare(select_part(network, "alignment"), program, sizes) < 1e-5


def test_a_wrong_file_is_noticed(alignment_file):
    """The check is able to fail: another network's weights are not taken for these."""
    torch.manual_seed(9)
    other = IACNN(num_feat=8, num_block=1).eval()
    program = exporting._load(alignment_file, ".onnx")
    assert compare(select_part(other, "alignment"), program) > 1e-3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_results_that_are_not_finite_are_noticed(network, bad):
    part = select_part(network, "alignment")
    assert compare(part, lambda *inputs: (part.module(*inputs) * bad,)) == float("inf")


def test_a_file_that_differs_is_not_kept(network, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match=r"x\.pt2 differs from PyTorch"):
        export(select_part(network, "alignment"), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_cells_make_up_the_whole_network(network, tmp_path):
    """The forward branch's cell in onnxruntime, the loop here: the network's own result."""
    export(select_part(network, "bidirectional-cell"), tmp_path / "cell.onnx")
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


def test_cells_of_a_network_that_cleans_take_cleaned_frames(tmp_path):
    torch.manual_seed(0)
    network = RealIACNN(num_feat=8, num_block=1, num_clean_block=1, num_heads=2).eval()
    network.set_cleaning(threshold=0.1)
    with torch.no_grad():
        network.image_cleaning[1].bias.zero_()
        network.image_cleaning[1].weight.mul_(3)
    export(select_part(network, "cleaning"), tmp_path / "cleaning.onnx")
    cell = select_part(network, "bidirectional-cell")
    assert list(cell.inputs) == ["cleaned", "previous", "flow", "other"]

    cleaning = onnxruntime.InferenceSession(tmp_path / "cleaning.onnx")
    frames = torch.rand(2, 3, 17, 22, generator=torch.Generator().manual_seed(1))
    frames[1] /= 10  # of which the first pass changes less than the threshold
    cleaned = torch.from_numpy(cleaning.run(["cleaned"], {"frame": frames.numpy()})[0])
    with torch.no_grad():
        once = frames + network.image_cleaning(frames)
        assert not torch.allclose(cleaned[0], once[0], atol=1e-3)  # it took more passes
        torch.testing.assert_close(cleaned[1], once[1], atol=1e-5, rtol=0)
        still, zeros = torch.zeros(1, 2, 17, 22), torch.zeros(1, 8, 17, 22)
        backward = RecurrentCell(network, direction="backward", bidirectional=True)
        other = backward(cleaned[:1], zeros, still, zeros)[0]
        hr_frame = cell.module(cleaned[:1], zeros, still, other)[1]
        torch.testing.assert_close(hr_frame, network(frames[None, :1])[0], atol=1e-5, rtol=0)


def run_branch(cells, branch, given, flows, frames=None):
    """IA-RT's loop over one branch's steps: features, and frames of the last branch."""
    t, c = len(given), 8
    order = range(t - 1, -1, -1) if branch.startswith("backward") else range(t)
    features, made = [None] * t, [None] * t
    previous = before = torch.zeros(1, c, *given[0].shape[2:])
    still = torch.zeros(1, 2, *given[0].shape[2:])
    flow = previous_flow = still
    for step, i in enumerate(order):
        flow, previous_flow = (flows[step - 1] if step else still), flow
        extra = () if frames is None else (frames[i],)
        result = cells[branch](given[i], previous, before, flow, previous_flow, *extra)
        features[i], made[i] = result if frames is not None else (result, None)
        previous, before = features[i], previous
    return made if frames is not None else features


def test_cells_make_up_ia_rt(transformer):
    """Four frames, so that a step has both, one or none of its two steps before."""
    clip = torch.rand(1, 4, 3, 17, 12, generator=torch.Generator().manual_seed(1))
    cells = {branch: TransformerCell(transformer, branch=branch) for branch in BRANCHES}
    with torch.no_grad():
        expected = transformer(clip)[0]
        forward, backward = (flow.unbind(1) for flow in clip_flows(transformer.spynet, clip))
        frames = given = clip.unbind(1)
        for branch in BRANCHES:
            flows = backward[::-1] if branch.startswith("backward") else forward
            last = frames if branch == BRANCHES[-1] else None
            given = run_branch(cells, branch, given, flows, last)
    assert torch.allclose(torch.cat(given), expected, atol=1e-5)


@pytest.mark.parametrize(("branch", "suffix"), [("backward_1", ".pt2"), ("forward_2", ".onnx")])
def test_a_cell_of_ia_rt_is_written(transformer, tmp_path, branch, suffix):
    path = tmp_path / f"cell{suffix}"
    export(select_part(transformer, "cell", branch=branch, size=(9, 13)), path)
    if suffix == ".onnx":
        model = onnx.load(path)
        names = ["current", "previous", "before", "flow", "previous_flow", "frame"]
        assert [i.name for i in model.graph.input] == names
        assert [o.name for o in model.graph.output] == ["features", "hr_frame"]


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_the_whole_network_is_written(weights, network, tmp_path, suffix, capsys):
    path = tmp_path / f"whole{suffix}"
    size = ["--frames", "2", "--size", "11", "18"]
    assert exporting.main(["--weights", weights, "--whole", *size, "-o", str(path)]) == 0
    assert "differs from PyTorch by at most" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    clip = torch.rand(1, 2, 3, 11, 18, generator=torch.Generator().manual_seed(7))
    if suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        frames = torch.from_numpy(session.run(["hr_frames"], {"frames": clip.numpy()})[0])
    else:
        frames = torch.export.load(path).module()(clip)
    with torch.no_grad():
        assert torch.allclose(frames, network(clip), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: IART(8, 8, depths=(1,), num_heads=(2,)),
        lambda: IACNN(8, 0, alignment="flow_warp", extractor=False),
        lambda: RealIACNN(8, 0, 0, clean_passes=2),
    ],
    ids=["ia-rt", "basicvsr", "real-ia-cnn"],
)
def test_every_network_is_written_whole(make, tmp_path):
    torch.manual_seed(0)
    assert export(select_whole(make().eval(), 2, (5, 4)), tmp_path / "whole.pt2") < 1e-5


def test_causal_cell_has_three_inputs(network):
    part = select_part(network, "cell")
    assert list(part.inputs) == ["frame", "previous", "flow"]
    frame, previous, flow = part.example(1, 9, 13)
    with torch.no_grad():
        features, hr_frame = part.module(frame, previous, flow)
        same, _ = RecurrentCell(network, bidirectional=True)(
            frame, previous, flow, torch.zeros_like(features)
        )
    assert features.shape == (1, 8, 9, 13)
    assert hr_frame.shape == (1, 3, 36, 52)
    assert torch.equal(same, features)


def test_alignment_of_ia_rt(transformer):
    inputs = select_part(transformer, "alignment").inputs
    assert [shape[1] for shape in inputs.values()] == [8, 8, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "x.bin"], "must end with .onnx or .pt2"),
        (["-o", "x"], "must end with .onnx or .pt2"),
        (["-o", "none/x.onnx"], "there is no folder none"),
        (["-o", "x.onnx", "--opset", "17"], "needs 18 or newer"),
        (["-o", "x.onnx", "--frames", "3"], "--frames has no effect"),
        (["-o", "x.onnx", "--direction", "backward"], "--direction has no effect"),
        (["-o", "x.onnx", "--part", "cleaning", "--size", "8", "8"], "--size has no effect"),
        (["-o", "x.onnx", "--part", "cell", "--branch", "forward_1"], "--branch has no effect"),
        (["-o", "x.onnx", "--whole", "--direction", "forward"], "--direction has no effect"),
        (["-o", "x.onnx", "--model", "ia-rt"], "holds ia-cnn weights, not ia-rt"),
        (["-o", "x.onnx", "--weights", "none.pth"], "none.pth: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_refused_in_a_line(
    weights, options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert exporting.main(["--weights", weights, *options]) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [["0", "8"], ["8", "-1"], ["x", "8"], ["1e3", "8"]])
def test_sizes_are_positive(size, capsys):
    with pytest.raises(SystemExit):
        exporting.main(["--weights", "w", "-o", "x.onnx", "--whole", "--size", *size])
    assert "error: " in capsys.readouterr().err


def test_parts_that_a_network_lacks(network, transformer):
    with pytest.raises(ValueError, match="--part nonsense"):
        select_part(network, "nonsense")
    for other in (network, transformer):
        with pytest.raises(ValueError, match=f"{type(other).__name__} cleans no frames"):
            select_part(other, "cleaning")
    with pytest.raises(ValueError, match="follow each other"):
        select_part(transformer, "bidirectional-cell", size=(8, 8))
    with pytest.raises(ValueError, match="needs --size"):
        select_part(transformer, "cell")
    plain = IACNN(num_feat=8, num_block=1, alignment="flow_warp", extractor=False)
    with pytest.raises(ValueError, match="aligns by FlowWarp"):
        select_part(plain, "alignment")
    with pytest.raises(ValueError, match="does not estimate the flow"):
        select_whole(AlignmentStudyNet(embed_dim=12, depths=(1,), num_heads=2), 2, (8, 8))
