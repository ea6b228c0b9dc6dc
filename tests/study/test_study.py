"""The study: its rows build, a small run is resumable and exact, its report says what was run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from iart_plugin.archs import AlignmentStudyNet
from iart_plugin.flow import SPyNet
from iart_plugin.study import ROWS, experiments
from iart_plugin.study.clips import StudyClips
from iart_plugin.study.findings import _against_no_propagation, _by_steps
from iart_plugin.study.report import _level, write_report
from iart_plugin.study.results import collect, paired_test
from iart_plugin.study.run import DEFAULT_ROWS, SETTINGS, Job, Study, build_row, recorded, run
from iart_plugin.study.scale import Scale
from tests.study.tiny import SCALE

pytest.importorskip("skimage", reason="the clips are made from its photographs")

DATA = {"num_train": 1, "num_test": 2, "num_frames": 3, "height": 40, "width": 40, "samples": 2}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    chosen = ("no_alignment", "nearest", "implicit")
    folder = tmp_path_factory.mktemp("study")
    study = Study(folder=folder, scale=SCALE, rows=chosen, flows=("gt", "noise"), data=DATA)
    run(study, report=lambda line: None)
    return study


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
    assert not ROWS["implicit_bilinear_values"].paper


def test_results_are_kept_and_not_made_twice(study):
    results = collect(study)
    assert set(results) == {
        ("no_alignment", "gt", ""),
        ("nearest", "gt", ""),
        ("implicit", "gt", ""),
        ("nearest", "noise", ""),
        ("implicit", "noise", ""),
    }
    assert results["nearest", "gt", ""][0]["flow_error"] == 0
    assert results["nearest", "noise", ""][0]["flow_error"] == pytest.approx(0.627, abs=0.03)
    path = study.result_file(Job(row=ROWS["nearest"], flow="gt", seed=0))
    stamp = path.stat().st_mtime_ns
    assert len(run(study, report=lambda line: None)) == 5
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="another scale"):
        run(replace(study, scale=replace(SCALE, iterations=5)))


def test_results_of_other_flow_weights_are_not_taken(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "study", ignore=shutil.ignore_patterns("checkpoints"))
    estimated = replace(study, folder=tmp_path / "study", rows=("nearest",), flows=("spynet",))
    path = study.result_file(Job(row=ROWS["nearest"], flow="gt", seed=0))
    finished = {**json.loads(path.read_text()), "flow": "spynet"}
    job = Job(row=ROWS["nearest"], flow="spynet", seed=0)
    estimated.result_file(job).write_text(json.dumps(finished))

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
    path = study.result_file(Job(row=ROWS["nearest"], flow="gt", seed=0))
    text = write_report(study, tmp_path).read_text()
    result = json.loads(path.read_text())
    assert f"{result['psnr']:.3f}" in text and f"{result['psnr_matched']:.3f}" in text
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
        first, second = (Job(row=ROWS[key], flow=flow, seed=seed) for seed in (0, 1))
        result = {**json.loads(study.result_file(first).read_text()), "seed": 1}
        interrupted.result_file(second).write_text(json.dumps(result))
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


@pytest.mark.parametrize("padding", ["own", "zeros"])
def test_report_names_the_padding_that_aligners_do_not_share(study, tmp_path, padding):
    scale = replace(SCALE, padding=padding)
    outside = torch.full((1, 2, 16, 16), 100.0)
    reference, current = torch.rand(2, 1, 8, 16, 16)
    reads = set()
    for key in ("nearest", "bilinear", "bicubic", "fgdc", "fgda", "patch", "implicit"):
        aligner = scale.build(ROWS[key].network, seed=0).alignment
        with torch.no_grad():
            once, twice = (aligner(factor * reference, current, outside) for factor in (1, 2))
        if not torch.allclose(once, twice):
            reads.add(key)
    assert reads == ({"implicit"} if padding == "own" else set())
    text = write_report(replace(study, scale=scale), tmp_path).read_text()
    assert ("IA repeats the border" in text) == (padding == "own")
    assert ("a part of the differences on all pixels is padding" in text) == (padding == "own")


def test_bilinear_values_are_the_features():
    """Where four neighbours are alike, any attention gives the feature itself."""
    network = build_row(ROWS["implicit_bilinear_values"], Scale(), seed=0)
    feature = torch.randn(1, 24, 1, 1, generator=torch.Generator().manual_seed(0))
    reference, current = feature.expand(1, 24, 9, 11), torch.randn(1, 24, 9, 11)
    flow = torch.rand(1, 2, 9, 11)
    with torch.no_grad():
        aligned = network.alignment(reference, current, flow)[..., :-2, :-2]
    assert torch.allclose(aligned, feature.expand_as(aligned), atol=1e-4)
    random = build_row(ROWS["implicit"], Scale(), seed=0)
    assert torch.equal(random.conv_first.weight, network.conv_first.weight)


def test_full_study_has_every_job_once():
    settings = tuple(SETTINGS)
    full = Study(
        folder=Path("nowhere"),
        rows=tuple(ROWS),
        flows=("gt", "noise", "spynet"),
        seeds=(0, 1, 2),
        settings=settings,
    )
    jobs = full.jobs()
    names = [job.name for job in jobs]
    assert len(names) == len(set(names)) == 13 + 15 + 2 * 13 + 2 * 10 + 3 + 2 * 2
    assert [job.seed for job in jobs if job.row.key == "implicit"].count(0) == 3 + 5
    assert {job.flow for job in jobs if job.row.key == "no_propagation"} == {"gt"}
    assert {job.flow for job in jobs if not job.row.tables} == {"gt"}
    assert {job.flow for job in jobs if job.row.key == "implicit_window_3"} == {"gt", "spynet"}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A study with two rates, of which the second is far too large, and one setting."""
    study = Study(
        folder=tmp_path_factory.mktemp("searched"),
        scale=replace(SCALE, search_iterations=3, searched_rates=(1e-3, 10.0)),
        rows=("bilinear", "implicit", "implicit_window_3"),
        seeds=(0, 1),
        settings=("4x steps",),
        data={**DATA, "num_train": 3},
    )
    lines = []
    run(study, report=lines.append)
    return study, lines


def test_rates_are_searched_for_on_validation_clips(searched):
    study, lines = searched
    assert sum("on validation clips" in line for line in lines) == 4
    results = collect(study)
    assert {e["learning_rate"] for entries in results.values() for e in entries} == {1e-3}
    scores = {
        path.stem: json.loads(path.read_text())["psnr_matched"]
        for path in study.folder.glob("search/*.json")
    }
    assert scores["implicit-0.001"] > scores["implicit-10"]
    clips = StudyClips(study.folder, study.scale, flow_weights={})
    trained_on = {sample["key"][:9] for sample in clips.load("gt")[0]}
    assert trained_on == {"train_000", "train_001"}
    assert [clip["key"][:9] for clip in clips.validation()] == ["train_002"]
    before = {path: path.stat().st_mtime_ns for path in study.folder.glob("[rs]e*/*.json")}
    run(study, report=lambda line: None)
    assert {path: path.stat().st_mtime_ns for path in study.folder.glob("[rs]e*/*.json")} == before


def test_settings_and_pairs_are_reported(searched, tmp_path):
    study, _ = searched
    results = collect(study)
    assert len(results["implicit", "gt", "4x steps"]) == 1
    assert len(results["implicit", "gt", ""]) == 2
    text = write_report(study, tmp_path).read_text()
    own, other = results["implicit", "gt", ""], results["bilinear", "gt", ""]
    difference, p = paired_test(own, other)
    assert f"| OF warp, bilinear | {difference:+.3f} | {p:.2g} |" in " ".join(text.split())
    usual, changed = own[0]["psnr_matched"], results["implicit", "gt", "4x steps"][0]
    gain = changed["psnr_matched"] - usual
    assert f"| 4x steps | IA | {changed['psnr_matched']:.3f} | {gain:+.3f} |" in " ".join(
        text.split()
    )
    assert "± " in text and "(2 seeds)" in text
    assert recorded(study.folder).jobs() == study.jobs()


def by_seed(*values: float) -> list[dict]:
    """A row's results, one for each seed from 0 on."""
    return [{"seed": seed, "psnr_matched": value} for seed, value in enumerate(values)]


@pytest.mark.parametrize(("level", "is_telling"), [(24.01, True), (24.5, False)])
def test_the_refined_frame_is_compared_with_w_o_prop(level, is_telling):
    results = {
        ("no_propagation", "gt", ""): by_seed(24.0, 25.0),
        ("bilinear", "gt", ""): by_seed(23.0, 30.0),
        ("implicit", "gt", ""): by_seed(24.25, 30.0),
        ("no_propagation", "gt", "4x steps"): by_seed(26.0),
        ("implicit", "gt", "4x steps"): by_seed(27.0),
        ("bilinear", "gt", "current frame refined"): by_seed(23.99),
        ("implicit", "gt", "current frame refined"): by_seed(level),
        ("implicit", "gt", "current frame refined and 4x steps"): by_seed(26.02),
    }
    text = _against_no_propagation(results)
    assert f"rows are -0.010 to {level - 24:+.3f} dB from w/o Prop." in text
    assert "with the aligned frame refined are -1.000 to +0.250 dB" in text
    assert "rows are +0.020 to +0.020 dB from w/o Prop." in text
    assert "with the aligned frame refined are +1.000 to +1.000 dB" in text
    assert ("takes next to nothing" in text) == is_telling
    assert _against_no_propagation({("implicit", "gt", ""): by_seed(24.0)}) == ""


@pytest.mark.parametrize(("later", "said"), [(25.9, "and 0.100 dB with four"), (25.7, "")])
def test_the_steps_explain_a_distance_that_they_halve(later, said):
    results = {
        ("fgdc", "gt", ""): by_seed(25.0),
        ("implicit", "gt", ""): by_seed(24.5),
        ("fgdc", "gt", "4x steps"): by_seed(26.0),
        ("implicit", "gt", "4x steps"): by_seed(later),
    }
    text = _by_steps(results)
    assert said in text and bool(said) == bool(text)


def test_paired_test_compares_the_clips_of_common_seeds():
    def entry(seed, *values):
        return {"seed": seed, **{f"psnr_matched/{i}": value for i, value in enumerate(values)}}

    first = [entry(0, 1.0, 2.0, 3.0), entry(1, 3.0, 4.0, 5.0), entry(2, 9.0, 9.0, 9.0)]
    second = [entry(0, 0.5, 1.0, 2.0), entry(1, 2.5, 2.0, 1.0)]
    difference, p = paired_test(first, second)
    assert difference == pytest.approx(np.mean([0.5, 1.5, 2.5]))
    assert p == pytest.approx(0.25)  # all three signs alike: 2 / 2^3
    assert paired_test(first, first) == (0.0, 1.0)


def test_flows_are_compared_by_the_seeds_that_both_have():
    def entries(*pairs):
        return [{"seed": seed, "psnr_matched": value} for seed, value in pairs]

    first = entries((0, 20.0), (1, 24.0))
    assert _level(first, first) == pytest.approx(22.0)
    assert _level(first, entries((0, 19.0))) == pytest.approx(21.0)
    assert _level(None, entries((0, 19.0))) == pytest.approx(19.0)
    assert np.isnan(_level(first, None))


def test_noise_is_as_large_as_the_estimated_flows_error(study, tmp_path):
    torch.manual_seed(0)
    torch.save({"params": SPyNet().state_dict()}, tmp_path / "spynet.pth")
    shutil.copytree(study.folder / "data", tmp_path / "study/data")
    clips = StudyClips(
        tmp_path / "study",
        SCALE,
        flow_weights={"spynet": str(tmp_path / "spynet.pth")},
        estimated=["spynet"],
    )
    samples, _, estimated = clips.load("spynet")
    truth, _, none = clips.load("gt")
    assert none == 0 < estimated
    assert torch.equal(samples[0]["valid"], truth[0]["valid"])
    assert clips.load("noise")[2] == pytest.approx(estimated, rel=0.1)
