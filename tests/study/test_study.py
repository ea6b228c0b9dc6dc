"""The study: its rows build, a small run is resumable and exact, its report says what was run."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.study import ROWS, experiments
from iart_plugin.study.report import collect, write_report
from iart_plugin.study.run import DEFAULT_ROWS, Study, recorded, run
from iart_plugin.study.scale import Scale
from iart_plugin.study.training import add_flow_noise, evaluate, psnr, train

pytest.importorskip("skimage", reason="the clips are made from its photographs")

SCALE = Scale(
    iterations=4,
    batch_size=2,
    num_frames=2,
    crop_size=8,
    embed_dim=8,
    mid_channels=4,
    depths=(1,),
)
DATA = {"num_train": 1, "num_test": 2, "num_frames": 3, "height": 40, "width": 40, "samples": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    chosen = ("no_alignment", "nearest", "implicit")
    folder = tmp_path_factory.mktemp("study")
    study = Study(folder=folder, scale=SCALE, rows=chosen, flows=("gt", "noise"), data=DATA)
    run(study, report=lambda line: None)
    return study


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "lq": torch.rand(2, 3, 10, 12, generator=generator),
            "gt": torch.rand(2, 3, 40, 48, generator=generator),
            "flows": torch.randn(1, 2, 10, 12, generator=generator),
            "key": f"clip_{i}/0001",
        }
        for i in range(3)
    ]


@pytest.mark.parametrize("key", ROWS)
def test_rows_build(key):
    network = AlignmentStudyNet(**ROWS[key].network, embed_dim=12, depths=(1,), num_heads=2)
    assert sum(p.numel() for p in network.parameters()) > 0


def test_rows_are_the_papers():
    table_1 = [row for row in ROWS.values() if "Table 1" in row.tables]
    assert len(table_1) == 7 and all(set(row.paper) == {"gt", "raft", "spynet"} for row in table_1)
    best = max(table_1, key=lambda row: row.paper["gt"])
    assert best.key == "implicit" and best.paper == {"gt": 32.14, "raft": 32.03, "spynet": 32.05}
    assert sum("Table 3" in row.tables for row in ROWS.values()) == 4
    assert sum("Table 4" in row.tables for row in ROWS.values()) == 3
    assert len(list(experiments())) == 2 + 3 * 7 + 3 * 3 + 3 + 2 * 2
    assert len(DEFAULT_ROWS) == 9


def test_a_stopped_run_ends_like_one_that_was_not(pairs, tmp_path):
    def trained(name, stops):
        network = SCALE.build(ROWS["implicit"].network, seed=0)
        for stop in stops:
            torch.manual_seed(99)  # what happened before must not matter
            network = SCALE.build(ROWS["implicit"].network, seed=0)

            def stop_after(step, loss, stop=stop):
                if step == stop:
                    raise KeyboardInterrupt

            options = {"checkpoint": tmp_path / name, "save_every": 1, "progress": stop_after}
            with contextlib.suppress(KeyboardInterrupt):
                train(network, pairs, SCALE, seed=0, **options)
        return network.state_dict()

    whole, stopped = trained("whole.pt", [None]), trained("stopped.pt", [2, 3, None])
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)


def test_training_lowers_the_loss(pairs, tmp_path):
    scale = replace(SCALE, iterations=25, learning_rate=2e-3)
    losses = []
    network = scale.build(ROWS["bilinear"].network, seed=0)
    train(
        network,
        [{**pairs[0], "gt": torch.full((2, 3, 40, 48), 0.2)}],
        scale,
        seed=0,
        checkpoint=tmp_path / "a.pt",
        progress=lambda step, loss: losses.append(loss),
    )
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_rate_goes_down_by_a_cosine(pairs, tmp_path, monkeypatch):
    rates, step = [], torch.optim.Adam.step

    def recorded_step(optimizer, *arguments):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded_step)
    scale = replace(SCALE, iterations=4, learning_rate=1e-3, final_learning_rate=1e-7)
    network = scale.build(ROWS["bilinear"].network, seed=0)
    train(network, pairs, scale, seed=0, checkpoint=tmp_path / "a.pt")
    half = (1e-3 + 1e-7) / 2
    swing = (1e-3 - 1e-7) / 2 * 0.5**0.5
    assert rates == pytest.approx([1e-3, half + swing, half, half - swing])


def test_psnr_and_the_frames_it_counts(pairs):
    target = torch.full((1, 3, 4, 4), 100 / 255)
    assert psnr(target + 10 / 255, target).item() == pytest.approx(28.1308, abs=1e-3)

    class Echo(torch.nn.Module):
        def forward(self, lq, flows):
            out = pairs[0]["gt"].unsqueeze(0).clone()
            out[:, 0] = (out[:, 0] * 255).round() / 255 + 10 / 255
            out[:, -1] = 0  # not counted
            return out

    clip = {**pairs[0], "gt": pairs[0]["gt"] * 0.9}
    pairs[0]["gt"] = clip["gt"]
    result = evaluate(Echo(), [clip])
    assert result["psnr"] == result["psnr/clip_0"] == pytest.approx(28.13, abs=0.02)


def test_noise_is_measured_and_repeats(pairs):
    before = pairs[0]["flows"].clone()
    error = add_flow_noise(pairs, 0.5, seed=3)
    # The mean length of a plane Gaussian vector is sigma * sqrt(pi / 2).
    assert error == pytest.approx(0.5 * (torch.pi / 2) ** 0.5, rel=0.1)
    again = [{**pairs[0], "flows": before}]
    add_flow_noise(again, 0.5, seed=3)
    assert torch.equal(again[0]["flows"], pairs[0]["flows"])


def test_results_are_kept_and_not_made_twice(study):
    results = collect(study)
    assert set(results) == {
        ("no_alignment", "gt"),
        ("nearest", "gt"),
        ("implicit", "gt"),
        ("nearest", "noise"),
        ("implicit", "noise"),
    }
    assert results["nearest", "gt"][0]["flow_error"] == 0
    assert results["nearest", "noise"][0]["flow_error"] == pytest.approx(0.627, abs=0.03)
    path = study.result_file(ROWS["nearest"], "gt", 0)
    stamp = path.stat().st_mtime_ns
    assert len(run(study, report=lambda line: None)) == 5
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another scale"):
        run(replace(study, scale=replace(SCALE, iterations=5)))


def test_results_of_other_flow_weights_are_not_taken(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "study", ignore=shutil.ignore_patterns("checkpoints"))
    estimated = replace(study, folder=tmp_path / "study", rows=("nearest",), flows=("spynet",))
    path = study.result_file(ROWS["nearest"], "gt", 0)
    finished = {**json.loads(path.read_text()), "flow": "spynet"}
    estimated.result_file(ROWS["nearest"], "spynet", 0).write_text(json.dumps(finished))

    def results(content=None):
        file = tmp_path / "spynet.pth"
        file.unlink(missing_ok=True)
        if content:
            file.write_bytes(content)
        return run(replace(estimated, flow_weights={"spynet": str(file)}), report=lambda _: None)

    before = json.loads(estimated.scale_file.read_text())
    assert results(b"one") == [finished]  # an older folder does not say whose its results are
    recorded_weights = json.loads(estimated.scale_file.read_text())
    assert set(recorded_weights) - set(before) == {"flow_weights"}
    assert results(b"one") == [finished]
    with pytest.raises(ValueError, match=r"holds a study of other spynet weights than .*pth; give"):
        results(b"two")
    with pytest.warns(UserWarning, match=r"spynet.pth is not a file"):
        assert results() == [finished]
    run(replace(study, folder=estimated.folder), report=lambda _: None)  # reads no estimate
    assert json.loads(estimated.scale_file.read_text()) == recorded_weights
    assert recorded(estimated.folder).scale == study.scale


def test_report_has_every_number_and_says_what_is_missing(study, tmp_path):
    path = study.result_file(ROWS["nearest"], "gt", 0)
    text = write_report(study, tmp_path).read_text()
    assert f"{json.loads(path.read_text())['psnr']:.3f}" in text
    assert "4 steps are far from convergence" in text and "One seed" in text
    assert "of 2 aligned rows are above w/o Align." in text
    assert "Not run" not in text and (tmp_path / "alignment_study.png").stat().st_size > 5000
    more = replace(study, rows=(*study.rows, "fgdc"))
    assert "Not run: FGDC (GT, seed 0)" in write_report(more, tmp_path).read_text()
    with pytest.raises(ValueError, match="no result yet"):
        write_report(replace(study, folder=tmp_path), tmp_path)


def test_report_says_which_rows_have_one_seed(study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study.folder / "results", folder / "results")
    interrupted = replace(study, folder=folder, seeds=(0, 1, 2))
    assert "* One seed: without a spread" in write_report(interrupted, tmp_path).read_text()
    for key, flow in (("no_alignment", "gt"), ("nearest", "gt")):
        path = study.result_file(ROWS[key], flow, 0)
        second = {**json.loads(path.read_text()), "seed": 1}
        interrupted.result_file(ROWS[key], flow, 1).write_text(json.dumps(second))
    assert "* One seed of some rows:" in write_report(interrupted, tmp_path).read_text()
    for path in (*folder.glob("results/implicit-*"), *folder.glob("results/nearest-noise*")):
        path.unlink()
    assert "One seed" not in write_report(interrupted, tmp_path).read_text()


def test_recorded_study_is_the_one_that_was_run(study, tmp_path):
    found = recorded(study.folder)
    assert (found.scale, found.data) == (study.scale, study.data)
    assert found.jobs() == study.jobs()
    shutil.copytree(study.folder, tmp_path / "study", ignore=shutil.ignore_patterns("data"))
    noise_first = tmp_path / "study/results/no_alignment-noise-0.json"
    path = tmp_path / "study/results/no_alignment-gt-0.json"
    noise_first.write_text(json.dumps({**json.loads(path.read_text()), "flow": "noise"}))
    path.unlink()
    assert list(recorded(tmp_path / "study").flows) == ["noise", "gt"]
    with pytest.raises(FileNotFoundError, match=r"scale\.json is missing: run the study there"):
        recorded(tmp_path)


def test_report_names_the_padding_that_aligners_do_not_share(study, tmp_path):
    outside = torch.full((1, 2, 16, 16), 100.0)
    reference, current = torch.rand(2, 1, 8, 16, 16)
    reads = set()
    for key in ("nearest", "bilinear", "bicubic", "fgdc", "fgda", "patch", "implicit"):
        aligner = SCALE.build(ROWS[key].network, seed=0).alignment
        with torch.no_grad():
            once, twice = (aligner(factor * reference, current, outside) for factor in (1, 2))
        if not torch.allclose(once, twice):
            reads.add(key)
    assert reads == {"implicit"}
    said = next(
        line for line in write_report(study, tmp_path).read_text().splitlines() if "padding" in line
    )
    page = Path(__file__).parents[2] / "docs/alignment_study.md"
    assert said in page.read_text(encoding="utf-8").splitlines()
