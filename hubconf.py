"""Networks for ``torch.hub``: one entry for each network that ``iart-plugin upscale`` offers.

torch.hub.load(FOLDER, "ia_rt", source="local", weights="IART_REDS_BI_N16.pth")
"""

from iart_plugin.archs import ARCHITECTURES as _ARCHITECTURES
from iart_plugin.archs import Architecture as _Architecture
from iart_plugin.inference import load_model as _load_model

dependencies = ["torch", "torchvision", "cv2", "safetensors"]
"""The modules that ``torch.hub`` asks for before it loads this file."""


def _entry(row: _Architecture):
    def entry(weights=None, **options):
        if weights is None:
            return row.network(**{**row.variant, **options})
        if options:
            raise ValueError(f"{weights} decides the network's options: {', '.join(options)}")
        return _load_model(row.model, weights).network

    entry.__doc__ = f"""{row.summary}.

    Args:
        weights: a checkpoint that fits, of any layout that is read here. If None, the network's
            weights are random.
        options: without ``weights``, arguments of {row.network.__name__}'s constructor.

    Returns:
        The network, which maps clips (n, t, 3, h, w) in [0, 1] to (n, t, 3, 4h, 4w).
    """
    return entry


for _row in _ARCHITECTURES.values():
    if _row.model:
        globals()[_row.model.replace("-", "_")] = _entry(_row)
