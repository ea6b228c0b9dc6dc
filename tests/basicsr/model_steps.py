"""Steps of a training model in a test, and what they changed."""

from __future__ import annotations

import torch


def batch(value: float = 0.0) -> dict:
    generator = torch.Generator().manual_seed(1)
    gt = torch.rand(1, 2, 3, 32, 32, generator=generator) + value
    return {"lq": torch.rand(1, 2, 3, 8, 8, generator=generator), "gt": gt, "key": ["001/3"]}


def train(model, iterations, value: float = 0.0) -> None:
    for iteration in iterations:
        model.feed_data(batch(value))
        model.optimize_parameters(iteration)


def state_of(model) -> dict:
    return {key: value.clone() for key, value in model.net_g.state_dict().items()}


def resumed(make, tmp_path, iteration: int, **changes):
    """Another run's model that goes on with what the first has saved."""
    path = tmp_path / "training_states" / f"{iteration}.state"
    other = make(path__resume_state=str(path), **changes)
    other.resume_training(torch.load(path, weights_only=True))
    return other
