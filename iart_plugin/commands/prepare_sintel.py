"""Check a copy of MPI-Sintel and write its bicubic low-resolution frames.

    iart-plugin prepare-sintel datasets/sintel

The command says which files are missing, clip by clip, and then writes training/<render>_bicubic_x4
beside the originals. Existing frames are kept. The data set makes missing frames itself, with the
same values, so this command only saves time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from iart_plugin.commands.console import EXIT_ERROR, command_parser, one_line_errors
from iart_plugin.data.sintel import SintelFlowDataset
from iart_plugin.data.sintel_files import (
    RENDERS,
    clip_names,
    frame_numbers,
    prepare_low_resolution,
    truncated,
)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, which is 1 if a clip is incomplete."""
    parser = command_parser("prepare-sintel", __doc__)
    parser.add_argument("root", type=Path, help="the folder that holds 'training'")
    parser.add_argument("--render", nargs="+", choices=RENDERS, default=["clean"])
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--check", action="store_true", help="only say what is missing")
    parser.add_argument("--partial", action="store_true", help="prepare what there is")
    args = parser.parse_args(argv)
    clips = sorted({*clip_names(args.root, "train"), *clip_names(args.root, "test")})
    for render in args.render:
        faults = _faults(args.root, render, clips)
        for fault in faults:
            print(fault, file=sys.stderr)
        print(f"{render}: {len(clips) - len(faults)} of {len(clips)} clips are complete")
        if faults and not args.partial:
            return EXIT_ERROR
        if not args.check:
            folders = [args.root / "training" / render / clip for clip in clips]
            total = sum(len(frame_numbers(folder)) for folder in folders)
            frames = prepare_low_resolution(args.root, render=render, scale=args.scale, clips=clips)
            written = sum(new for _, new in tqdm(frames, total=total, unit="frame", desc=render))
            print(f"{render}: {written} frames written, {total - written} were there")
    return 0


def _faults(root: Path, render: str, clips: list[str]) -> list[str]:
    faults = []
    for clip in clips:
        try:
            SintelFlowDataset(root, render=render, clips=[clip])
        except (FileNotFoundError, ValueError) as error:
            faults.append(str(error))
            continue
        fault = truncated(root, render, clip)
        faults += [fault] if fault else []
    return faults
