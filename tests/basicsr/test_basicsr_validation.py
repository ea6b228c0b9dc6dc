"""Validation in a training: what is shown, what is recorded, and what a resumed run knows."""

from __future__ import annotations

import pytest
import torch

import iart_plugin.basicsr  # noqa: F401  registers
from tests.basicsr.model_steps import resumed


class Board(dict):
    """A TensorBoard writer that keeps the last value of each name, and all iterations."""

    def __init__(self) -> None:
        super().__init__()
        self.iterations = []

    def __bool__(self) -> bool:
        return True

    def add_scalar(self, name, value, iteration):
        self[name] = value
        self.iterations.append(iteration)

    def add_image(self, name, image, iteration):
        self.add_scalar(name, image, iteration)


def val_loader(model, phase: str = "val"):
    from basicsr.data import build_dataloader, build_dataset

    opt = model.opt["datasets"][phase]
    opt.update(phase="val", scale=4)
    return build_dataloader(build_dataset(opt), opt)


@pytest.mark.parametrize("flip", [False, True])
def test_a_frame_is_shown_in_tensorboard(make, flip) -> None:
    model, board = make(val__flip_seq=flip), Board()
    loader = val_loader(model)
    model.validation(loader, 1, board)
    shown = board["frames/REDS4"]
    assert shown.shape == (3, 64, 3 * 64)
    assert torch.equal(shown[:, ::4, :64:4], loader.dataset[0]["lq"][2])
    assert torch.equal(shown[..., 128:], loader.dataset[0]["gt"][2])
    assert board["metrics/psnr"] > 15
    assert 0 < board["metrics/ssim"] <= 1


def test_sets_validated_together_have_tags_of_their_own(make) -> None:
    model, board = make(), Board()
    model.opt["datasets"]["val_2"] = {**model.opt["datasets"]["val"], "name": "Vid4"}
    for phase in ("val", "val_2"):
        model.validation(val_loader(model, phase), 1, board)
    for name in ("REDS4", "Vid4"):
        assert {f"frames/{name}", f"metrics/{name}/psnr", f"metrics/{name}/ssim"} <= board.keys()
    assert "metrics/psnr" not in board


def test_the_last_iteration_is_validated_once(make) -> None:
    model, board = make(), Board()
    loader = val_loader(model)
    for iteration in (2, 4, 6):  # BasicSR's, at the end of 4
        model.validation(loader, iteration, board)
    assert set(board.iterations) == {2, 4}
    assert len(board.iterations) == 2 * len(board)
    assert model.best_metric_results["REDS4"]["psnr"]["iter"] in (2, 4)


def test_best_figures_of_a_validation_after_the_save_are_resumed(make, tmp_path, caplog) -> None:
    options = {"val__val_freq": 2, "train__total_iter": 8}
    model = make(**options)
    loader = val_loader(model)
    for iteration in (2, 4):
        model.save(0, iteration)
        model.validation(loader, iteration, None)  # each is as good as the best before
    model.save(0, 6)
    model.save(0, 8)
    # Not even what another branch finds later changes what is known of an iteration.
    resumed(make, tmp_path, 2, **options).validation(loader, 3, None)
    model.validation(loader, 5, None)
    with caplog.at_level("WARNING", "basicsr"):
        for iteration in (2, 4):
            best = resumed(make, tmp_path, iteration, **options).best_metric_results
            assert best["REDS4"]["ssim"]["iter"] == iteration
        resumed(make, tmp_path, 8, **options)  # where BasicSR validates at the end
        assert "before it had validated" not in caplog.text
        resumed(make, tmp_path, 6, **options)
    assert "before it had validated iteration 6 on REDS4" in caplog.text


def test_what_was_validated_is_not_again_after_a_resume(make, tmp_path) -> None:
    model = make()
    model.save(0, 4)
    model.validation(val_loader(model), 4, None)
    other, board = resumed(make, tmp_path, 4), Board()
    other.validation(val_loader(other), 6, board)
    assert not board.iterations


def test_damaged_record_of_validations_is_passed_over(make, tmp_path) -> None:
    model = make()
    model.save(0, 2)
    (tmp_path / "training_states" / "validations.pth").write_bytes(b"half")
    with pytest.warns(UserWarning, match=r"validations\.pth cannot be read.*are the state's"):
        resumed(make, tmp_path, 2)


def test_best_figures_of_other_metrics_are_left(make, tmp_path) -> None:
    model = make()
    model.save(0, 2)
    model.best_metric_results = {"REDS4": {"psnr": {"better": "higher", "val": 30.0, "iter": 2}}}
    model.save(0, 3)
    other = resumed(make, tmp_path, 3)
    assert other.best_metric_results == {}
    other.validation(val_loader(other), 4, None)
    assert other.best_metric_results["REDS4"].keys() == {"psnr", "ssim"}
