"""Tries malformed inputs of every kind with many seeds; the test suite tries only the first.

    python -m benchmarks.fuzz [--rounds N]

Prints how many inputs were tried and handled correctly. Needs pytest.
"""

import argparse
import os
import sys

import pytest

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="seeds to try (default 10)")
    os.environ["IART_PLUGIN_FUZZ_ROUNDS"] = str(parser.parse_args().rounds)
    sys.exit(pytest.main(["-s", "-q", "--tb=short", "tests/fuzz"]))
