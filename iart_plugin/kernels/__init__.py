"""Fused GPU kernels, written in Triton.

Triton comes with PyTorch for CUDA and compiles the kernels on the user's card when they are first
used. Only this package imports Triton, and only after
:mod:`~iart_plugin.kernels.availability` has decided that a kernel will be used. It imports nothing
from ``ops`` or ``archs``. These register the kernels as operators, each with a reference form that
must give the same results, and choose which form to use.
"""
