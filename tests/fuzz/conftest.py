"""Seeds of the malformed inputs: one in the suite, more with ``python -m benchmarks.fuzz``."""

import os


def pytest_generate_tests(metafunc):
    """Run a test that takes a ``fuzz_seed`` once for each."""
    if "fuzz_seed" in metafunc.fixturenames:
        rounds = int(os.environ.get("IART_PLUGIN_FUZZ_ROUNDS", "1"))
        metafunc.parametrize("fuzz_seed", range(rounds))
