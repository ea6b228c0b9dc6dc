"""Fused GPU kernels, written in Triton.

Triton comes with PyTorch for CUDA and compiles the kernels on the user's card when they are first
used. This package is the only place that imports it, and it does so only once
:mod:`~iart_plugin.kernels.availability` has said that a kernel will be used. It imports nothing of
the folders above it: ``ops`` and ``archs`` register the kernels as operators, each beside the
reference form that it must equal, and choose between their forms.
"""
