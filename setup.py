"""Installation. The extras name what each part of the plugin needs beside the core."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

CORE = [
    "torch>=2.4",
    "torchvision>=0.19",
    "numpy>=1.24",
    "opencv-python",
    "safetensors",
    "tqdm",
    "pyyaml",
]
# BasicSR must be built without isolation (its setup imports torch), MMagic installed without its
# declared dependencies: the Makefile's `setup` shows the order that works, with pinned versions.
BASICSR = ["basicsr>=1.4.2"]
MMAGIC = ["mmengine>=0.10.7", "mmcv-lite>=2.1,<2.2", "mmagic>=1.2"]
VIDEO = ["av>=18"]
EXPORT = ["onnx", "onnxruntime", "onnxscript"]
DEV = ["pytest>=8", "pytest-timeout", "ruff", "matplotlib", "scikit-image"]

setup(
    name="iart_plugin",
    version="0.1.0",
    description="Video super-resolution with implicit resampling-based alignment, "
    "as a plugin for BasicSR and MMagic",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.12",
    packages=find_packages(include=["iart_plugin", "iart_plugin.*"]),
    install_requires=CORE,
    extras_require={
        "basicsr": BASICSR,
        "mmagic": MMAGIC,
        "video": VIDEO,
        "export": EXPORT,
        "dev": DEV,
        "all": BASICSR + MMAGIC + VIDEO + EXPORT + DEV,
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
    ],
)
