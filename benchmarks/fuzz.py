"""Malformed inputs of every kind, by seeds, of which the test suite tries the first.

    python -m benchmarks.fuzz [--rounds N]

Prints how many were tried and held. Needs pytest.
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
