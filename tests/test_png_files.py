import cv2
import numpy as np
import pytest

from iart_plugin.png_files import encode_png, write_png


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1, 3)])
def test_written_and_read(tmp_path, dtype, shape):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    path = tmp_path / "new" / "a.png"
    write_png(path, image)
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read.dtype == dtype
    assert np.array_equal(read[..., ::-1] if read.ndim == 3 else read, image)
    assert path.read_bytes() == encode_png(image)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_failure_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_png(path, np.zeros((4, 4), np.uint8))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_png(path, np.ones((4, 4), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
