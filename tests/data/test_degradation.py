"""The degradations against MATLAB's published numbers, BasicSR's functions and direct sums."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from iart_plugin.data.degradation import bicubic_downsample, gaussian_downsample, imresize


def _basicsr_file(name: str) -> Path:
    spec = importlib.util.find_spec("basicsr")
    if spec is None:
        pytest.skip("BasicSR is not installed")
    return Path(spec.submodule_search_locations[0]) / f"{name}.py"


def _image(height, width, channels=3, seed=0):
    # Smooth and rough content together, over the whole range.
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (height, width, channels))
    y, x = np.mgrid[:height, :width]
    smooth = 127 + 120 * np.sin(y / 5)[..., None] * np.cos(x / 7)[..., None]
    return (0.5 * rough + 0.5 * smooth).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 48), (37, 51), (24, 19)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_equals_basicsr(size, scale):
    # Read by path: with a new torchvision the package itself needs mending to import.
    path = _basicsr_file("utils/matlab_functions")
    spec = importlib.util.spec_from_file_location("matlab_functions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    image = _image(*size) / 255.0
    expected = module.imresize(image, 1 / scale)
    ours = bicubic_downsample(image, scale)
    assert ours.shape == expected.shape
    # BasicSR computes in float32.
    np.testing.assert_allclose(ours, expected, atol=3e-6)


def test_bicubic_weights_are_matlabs():
    # The row of a x4 reduction, from the definition: cubic((k + 1/2) / 4) / 4, k = -8..7.
    impulse = np.zeros((64, 1))
    impulse[32] = 1
    response = np.array(
        [bicubic_downsample(np.roll(impulse, k, axis=0), 4)[8, 0] for k in range(-6, 10)]
    )
    x = np.abs((np.arange(-6, 10) - 1.5) / 4)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    np.testing.assert_allclose(response, np.where(x <= 1, near, far) / 4, atol=1e-15)


def test_bicubic_of_constant_and_of_one_pixel():
    assert (bicubic_downsample(np.full((5, 7, 3), 201, np.uint8), 4) == 201).all()
    assert bicubic_downsample(np.full((1, 1), 0.25), 4) == pytest.approx(0.25)


def test_imresize_enlarges_and_keeps_dtype():
    image = _image(12, 10)
    assert imresize(image, 4).shape == (48, 40, 3)
    assert imresize(image, 4).dtype == np.uint8
    assert imresize(image.astype(np.float32), 0.5).dtype == np.float32
    gray = imresize(image[..., 0], 0.5)
    np.testing.assert_array_equal(gray, imresize(image, 0.5)[..., 0])


def test_released_gaussian_equals_direct_sum():
    """The definition term by term: fspecial, imfilter with replicated borders, rows 2, 6, 10."""
    image = _image(21, 30)
    line = np.exp(-((np.arange(12) - 5.5) ** 2) / (2 * 1.6**2))
    kernel = np.outer(line, line)
    kernel /= kernel.sum()
    ours = gaussian_downsample(image, 4)
    assert ours.shape == (5, 8, 3)
    for i, row in enumerate(range(2, 22, 4)):
        for j, column in enumerate(range(2, 31, 4)):
            # Element 6 of 12 lies on the pixel; all counted from 1, as MATLAB does.
            rows = np.clip(np.arange(row - 5, row + 7), 1, 21) - 1
            columns = np.clip(np.arange(column - 5, column + 7), 1, 30) - 1
            patch = image[np.ix_(rows, columns)]
            expected = np.rint(np.einsum("yx,yxc->c", kernel, patch))
            np.testing.assert_array_equal(ours[i, j], expected)


def test_13_tap_gaussian_equals_basicsr():
    # Its module imports the whole package, so only its two functions are run.
    names = ("generate_gaussian_kernel", "duf_downsample")
    tree = ast.parse(_basicsr_file("data/data_util").read_text())
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    basicsr = {"np": np, "torch": torch, "F": torch.nn.functional}
    exec(compile(ast.Module(wanted, []), "data_util", "exec"), basicsr)

    image = _image(40, 32) / 255.0
    frames = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = basicsr["duf_downsample"](frames)[0].permute(1, 2, 0).numpy()
    ours = gaussian_downsample(image, 4, version="13-tap")
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


def test_the_two_gaussians_differ_by_position():
    ramp = np.tile(np.arange(80.0), (80, 1))
    released = gaussian_downsample(ramp, 4)[10, 5:15]
    odd = gaussian_downsample(ramp, 4, version="13-tap")[10, 5:15]
    np.testing.assert_allclose(released - odd, 1.5, atol=1e-9)
    # The released grid is bicubic's: the middle of each block.
    np.testing.assert_allclose(released, bicubic_downsample(ramp, 4)[10, 5:15], atol=1e-9)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: bicubic_downsample(x, 0), ValueError),
        (lambda x: bicubic_downsample(x, 2.5), ValueError),
        (lambda x: imresize(x, -1.0), ValueError),
        (lambda x: bicubic_downsample(x[0, 0], 4), ValueError),
        (lambda x: bicubic_downsample(x.astype(np.int32), 4), TypeError),
        (lambda x: gaussian_downsample(x, 4, version="duf"), ValueError),
        (lambda x: gaussian_downsample(x, 4, sigma=0.0), ValueError),
        (lambda x: gaussian_downsample(x, 4, offset=99), ValueError),
    ],
)
def test_refusals(call, error):
    with pytest.raises(error):
        call(_image(16, 16))
