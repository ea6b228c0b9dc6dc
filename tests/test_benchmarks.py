"""The benchmarks' command runs and writes what its page says; the figures are its own matter."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_row_that_takes_no_time(tmp_path):
    output = tmp_path / "benchmarks.json"
    command = [sys.executable, "-m", "benchmarks", "--only", "alignment", "--output", str(output)]
    printed = subprocess.check_output(command, cwd=ROOT, text=True)
    (row,) = json.loads(output.read_text())
    assert set(row) == {"name", "ratio", "goal", "unit", "detail"}
    assert row["ratio"] > row["goal"]  # counted, not timed
    assert f"| {row['name']} |" in printed and "PyTorch" in printed
