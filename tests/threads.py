"""A fixture for the folders whose tests compute too little to share among threads."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Computes with one thread in every test of a folder whose ``conftest.py`` imports this."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
