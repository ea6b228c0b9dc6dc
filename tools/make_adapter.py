"""Save what a trained IA-CNN has beside the BasicVSR that it was started from, in half precision.

    python tools/make_adapter.py IA_CNN.pth BASICVSR.pth adapter.safetensors

``iart_plugin.archs.load_ia_cnn(adapter, basicvsr)`` puts the two together again. If a checkpoint
has averaged weights, these are used. Weights that training did not change are not stored.
"""

import argparse
import sys
from pathlib import Path

from iart_plugin.archs import load_checkpoint, save_adapter


def main(argv: list[str] | None = None) -> None:
    """Reads both checkpoints and writes the adapter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ia_cnn", help="a checkpoint of BasicSR, MMagic or this package")
    parser.add_argument("basicvsr", help="what it was started from")
    parser.add_argument("output", type=Path, help="the adapter, .safetensors or .pth")
    args = parser.parse_args(argv)
    try:
        network, _ = load_checkpoint(args.ia_cnn)
        save_adapter(network, args.basicvsr, args.output)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
