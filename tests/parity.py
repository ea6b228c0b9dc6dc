"""Rebuilds the recorded cases: weights and inputs from their names and seeds alone."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CASES = json.loads(Path(__file__).with_name("data").joinpath("parity.json").read_text())


def cases(kind: str) -> list[dict]:
    return [case for case in CASES if case["kind"] == kind]


def filled(key: str, shape: list[int], salt: str) -> Tensor:
    """The value that a parameter of this official name has in a case."""
    state = np.random.RandomState(zlib.crc32((salt + key).encode()))
    r = state.standard_normal(int(np.prod(shape))).reshape(shape)
    if key.endswith("relative_position_bias_table"):
        r = 0.5 * r
    elif len(shape) >= 2:
        r = r / np.sqrt(np.prod(shape[1:]))
    elif "norm" in key and key.endswith("weight"):
        r = 1 + 0.1 * r
    else:
        r = 0.05 * r
    return torch.from_numpy(r.astype(np.float32))


def assert_recorded(output: Tensor, case: dict, tolerance: float) -> None:
    """Checks values, mean and standard deviation of an output against the recorded ones."""
    assert list(output.shape) == case["output_shape"]
    recorded = case["output"]
    flat = output.detach().contiguous().flatten()
    values = flat[torch.tensor(recorded["indices"])]
    assert (values - torch.tensor(recorded["values"])).abs().max() <= tolerance
    assert abs(flat.mean().item() - recorded["mean"]) <= tolerance
    assert abs(flat.std(unbiased=False).item() - recorded["std"]) <= tolerance
