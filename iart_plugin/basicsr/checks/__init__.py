"""Finds mistakes before a run starts, and reports each in one sentence.

``options`` checks an option file, ``weights`` the weight files that it names, and ``data`` the
frames of its data sets. Every mistake raises an :class:`~iart_plugin.option_errors.OptionError`
that names the key or the file.
"""

from iart_plugin.basicsr.checks.data import (
    check_dataset,
    check_datasets,
    known_dataset,
    list_frame_pairs,
)
from iart_plugin.basicsr.checks.options import check_options, validation_sets
from iart_plugin.basicsr.checks.weights import check_weights
from iart_plugin.option_errors import OptionError

__all__ = [
    "OptionError",
    "check_dataset",
    "check_datasets",
    "check_options",
    "check_weights",
    "known_dataset",
    "list_frame_pairs",
    "validation_sets",
]
