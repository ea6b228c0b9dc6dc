"""Makes every write, rename, fsync, encode and mux call of an upscaling run fail, in three ways.

    python -m benchmarks.faults

The test suite tries only a part of them. Needs a system on which processes can fork, and pytest.
"""

import os
import sys

import pytest

if __name__ == "__main__":
    os.environ["IART_PLUGIN_FAULTS_STEP"] = "1"
    sys.exit(pytest.main(["-s", "-q", "--tb=short", "tests/commands/test_upscale_faults.py"]))
