"""Fused GPU kernels, written in Triton.

Triton comes with PyTorch for CUDA and compiles the kernels on the user's card when they are first
used. This package is the only place that imports it, and it does so only once
:mod:`~iart_plugin.kernels.availability` has said that a kernel will be used. Every kernel is a
``torch.library`` operator with a fake implementation and a gradient, and computes what a reference
form computes. It imports nothing of ``ops`` and ``archs``, which choose between their forms.
"""
