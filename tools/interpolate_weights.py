"""Write weights on the line between two checkpoints of one network.

    python tools/interpolate_weights.py START.pth TRAINED.pth 0.3 OUT.pth

0 gives START, and 1 gives TRAINED (its averaged weights if it has them). A share in between shows
what a short training found: the effect of what it learnt grows with the share, and the effect of
the noise that its steps left in the weights grows with the square of the share.
"""

import argparse
import sys

from iart_plugin.archs import load_checkpoint, save_checkpoint


def main(argv: list[str] | None = None) -> None:
    """Reads both checkpoints and writes the weights between them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("start")
    parser.add_argument("trained")
    parser.add_argument("share", type=float, help="of the way, usually 0 to 1")
    parser.add_argument("output", help=".pth or .safetensors")
    args = parser.parse_args(argv)
    try:
        network, other = (load_checkpoint(path)[0] for path in (args.start, args.trained))
        start, trained = network.state_dict(), other.state_dict()
        if network.options != other.options:
            raise ValueError(
                f"{args.trained} is of another network than {args.start}: {other.options}, not "
                f"{network.options}"
            )
        mixed = {key: value.lerp(trained[key], args.share) for key, value in start.items()}
        network.load_state_dict(mixed)
        save_checkpoint(network, args.output)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
