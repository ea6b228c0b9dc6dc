"""Make an IA-CNN checkpoint out of a BasicVSR checkpoint, with trained weights or without.

    python tools/warm_start_ia_cnn.py BASICVSR.pth ia_cnn.pth
    python tools/warm_start_ia_cnn.py BASICVSR.pth ia_cnn.pth --adapter ADAPTER.safetensors

An adapter holds what training changed, see tools/make_adapter.py. Without one the implicit
alignment is solved for so that it resamples as BasicVSR's bilinear warping does;
iart_plugin/archs/warm_start.py says how. The input may be BasicSR's or MMagic's, the output is a
.pth for BasicSR (entry ``params``) or a .safetensors file. A network made without an adapter has
``alignment_options: {position_channels: 16, padding_mode: zeros}``, as the option files do.
"""

import argparse
import sys

from iart_plugin.archs import load_ia_cnn, save_checkpoint


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("basicvsr", help="BasicVSR checkpoint, BasicSR's or MMagic's layout")
    parser.add_argument("output", help="where to write the IA-CNN, .pth or .safetensors")
    parser.add_argument("--adapter", default="warm-start", help="trained weights to add")
    args = parser.parse_args(argv)
    try:
        network = load_ia_cnn(args.adapter, args.basicvsr)
        save_checkpoint(network, args.output)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{args.output}: IA-CNN, {sum(p.numel() for p in network.parameters()):,} parameters")


if __name__ == "__main__":
    main()
