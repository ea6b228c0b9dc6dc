"""Make a data set of synthetic clips with exact flow, in MPI-Sintel's layout.

    python tools/make_flow_dataset.py datasets/synthetic_flow

The clips need scikit-image (for its photographs). A run that was stopped can be resumed.
"""

import argparse

from tqdm import tqdm

from iart_plugin.data.synthetic import write_dataset


def main() -> None:
    """Writes the clips, with their flows, below the folder that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder to write; 'training' is made in it")
    parser.add_argument("--train-clips", type=int, default=20)
    parser.add_argument("--test-clips", type=int, default=3)
    parser.add_argument("--frames", type=int, default=10, help="frames a clip (default 10)")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"))
    parser.add_argument("--layers", type=int, default=4, help="layers, the background included")
    parser.add_argument("--speed", type=float, default=6.0, help="largest motion, pixels a frame")
    parser.add_argument("--samples", type=int, default=4, help="anti-aliasing grid in a pixel")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    clips = write_dataset(
        args.root,
        seed=args.seed,
        num_train=args.train_clips,
        num_test=args.test_clips,
        num_frames=args.frames,
        height=args.size[0],
        width=args.size[1],
        num_layers=args.layers,
        speed=args.speed,
        samples=args.samples,
    )
    total = args.train_clips + args.test_clips
    written = sum(new for _, new in tqdm(clips, total=total, unit="clip"))
    print(f"{args.root}: {written} clips written, {total - written} were there")


if __name__ == "__main__":
    main()
