"""Training and scoring of one network: resumable, exact, on the pixels that count."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from iart_plugin.study import ROWS
from iart_plugin.study.training import add_flow_noise, evaluate, matched_pixels, psnr, train
from tests.study.tiny import SCALE


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "lq": torch.rand(2, 3, 10, 12, generator=generator),
            "gt": torch.rand(2, 3, 40, 48, generator=generator),
            "flows": torch.randn(1, 2, 10, 12, generator=generator),
            "valid": torch.ones(1, 1, 10, 12),
            "key": f"clip_{i}/0001",
        }
        for i in range(3)
    ]


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


def test_matches_outside_a_crop_do_not_count():
    flows = torch.zeros(1, 2, 3, 4)
    flows[0, 0, 1, 3] = 0.4  # half a pixel beyond the last centre is still inside
    flows[0, 0, 2, 3] = 0.6
    flows[0, 1, 0, 0] = -0.6
    valid = torch.ones(1, 1, 3, 4)
    valid[0, 0, 1, 1] = 0
    mask = matched_pixels(flows, valid)
    assert mask.shape == (1, 1, 12, 16)
    expected = torch.ones(3, 4)
    expected[2, 3] = expected[0, 0] = expected[1, 1] = 0
    assert torch.equal(mask[0, 0, ::4, ::4], expected)
    assert torch.equal(mask[0, 0, 3::4, 3::4], expected)


def test_a_loss_on_matched_pixels_does_not_see_the_others(pairs, tmp_path):
    def trained(name, samples, **changes):
        scale = replace(SCALE, iterations=2, crop_size=10, **changes)
        network = scale.build(ROWS["bilinear"].network, seed=0)
        train(network, samples, scale, seed=0, checkpoint=tmp_path / name)
        return network.state_dict()["conv_first.weight"]

    pair = {**pairs[0], "flows": torch.zeros(1, 2, 10, 12)}
    pair["valid"][..., :, 3:] = 0
    other = {**pair, "gt": pair["gt"].clone()}
    other["gt"][0, :, :, 12:] = 0  # of the first frame, what has no match
    other["gt"][1] = 0  # and the whole of the last one
    assert torch.equal(trained("a", [pair]), trained("b", [other]))
    every = {"matched_only": False}
    assert not torch.equal(trained("c", [pair], **every), trained("d", [other], **every))


def test_psnr_of_matched_pixels():
    target = torch.full((2, 3, 4, 4), 100 / 255)
    output = target.clone()
    output[0, :, :, :2] += 10 / 255
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, :, 1:] = 1
    found = psnr(output, target, mask)
    assert found[0].item() == pytest.approx(28.1308 + 10 * np.log10(3), abs=1e-3)
    assert found[1].isnan()
