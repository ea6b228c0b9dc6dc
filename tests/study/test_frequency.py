"""The measured responses against theory, and a short training of IA that beats its start."""

import numpy as np
import pytest
import torch

from iart_plugin.ops import pixel_grid
from iart_plugin.study.frequency import (
    SPECTRA,
    ImplicitResampler,
    explicit_resamplers,
    measure,
    plot,
    sinusoids,
    theory,
    train_implicit,
)

SMALL = {"num_frequencies": 5, "num_shifts": 16, "size": 24}


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_mean_response_is_the_kernels_fourier_transform(name):
    response = measure(explicit_resamplers()[name], **SMALL)
    expected = theory(response.frequencies)[name]
    # 16 shifts integrate the kernel to about a thousandth.
    np.testing.assert_allclose(response.mean_over_shifts(), expected, atol=2e-3)


def test_response_of_each_shift():
    """Bilinear at shift s weighs its two pixels 1 - s and s; nearest shifts by s."""
    responses = {name: measure(r, **SMALL) for name, r in explicit_resamplers().items()}
    f = responses["bilinear"].frequencies[:, None]
    s = responses["bilinear"].shifts[None, :]
    weights = (1 - abs(s)) + abs(s) * np.exp(2j * np.pi * f * np.sign(s))
    expected = weights * np.exp(-2j * np.pi * f * s)
    np.testing.assert_allclose(responses["bilinear"].values, expected, atol=2e-3)
    nearest = np.exp(-2j * np.pi * f * s)
    np.testing.assert_allclose(responses["nearest"].values, nearest, atol=2e-3)
    assert (
        responses["bicubic"].error() < responses["bilinear"].error() < responses["nearest"].error()
    )


def test_a_perfect_resampler_measures_as_one():
    response = measure(lambda reference, flow: reference, num_shifts=1, num_frequencies=4, size=24)
    np.testing.assert_allclose(response.values, 1, atol=1e-5)  # the only shift is none
    assert response.error() < 1e-5


def test_sinusoids():
    frequency = torch.tensor([[[0.25, 0.0], [0.0, 0.125]]])
    pixels = pixel_grid(8, 8, device=frequency.device, dtype=frequency.dtype)
    out = sinusoids(frequency, torch.zeros(1, 2), pixels[None], torch.tensor([[1.0, 2.0]]))
    assert out.shape == (1, 1, 8, 8)
    assert out[0, 0, 4, 2].item() == pytest.approx(np.cos(np.pi) + 2 * np.cos(np.pi), abs=1e-5)


def test_training_is_seeded_and_learns():
    losses = []
    network = train_implicit(steps=60, progress=lambda step, loss: losses.append(loss))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    trained = measure(network, **SMALL).error()
    torch.manual_seed(0)
    assert trained < 0.8 * measure(ImplicitResampler().eval(), **SMALL).error()
    again = train_implicit(steps=2)
    same = train_implicit(steps=2)
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), same.parameters(), strict=True)
    )


def test_spectrum_decides_what_is_learnt():
    """Trained on slow waves, it resamples slow waves better than one trained on all alike."""
    trained = {s: measure(train_implicit(steps=80, spectrum=s), **SMALL) for s in SPECTRA}
    slow = {s: np.abs(response.values[0] - 1).mean() for s, response in trained.items()}
    assert slow["natural"] < slow["uniform"]
    with pytest.raises(ValueError, match="uniform, natural"):
        train_implicit(steps=1, spectrum="pink")


def test_plot(tmp_path):
    responses = {name: [measure(r, **SMALL)] for name, r in explicit_resamplers().items()}
    plot(responses, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
