"""Where the kernels' own tests run: on the GPU, or in a process with Triton's interpreter.

``test_*_kernel.py`` are collected where a kernel can run. Elsewhere ``test_interpreter.py`` starts
a process for each of them in which Triton interprets kernels on the CPU.
"""

from tests.kernels.harness import DEVICE

collect_ignore_glob = [] if DEVICE else ["test_*_kernel.py"]
