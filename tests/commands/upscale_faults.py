"""One call of a run fails, and what must hold after it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from iart_plugin.commands.upscale import UpscaleOptions, job, upscale_video
from iart_plugin.commands.upscale.cli import set_up_logging
from tests.faults import KILLED, MODES, Faults, Mode, calls_of, run_forked
from tests.videos import Clip, moving_picture, read_back, write_clip

OUTPUTS = ("out.mp4", "out")


class Film:
    """A short film, with sound, and what becomes of it.

    Args:
        folder: An empty folder to work in.
        name: The output's: a video, or a folder of images.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.log = folder / "log.txt"
        frames = [moving_picture(i) for i in range(12)]
        self.source = write_clip(folder / "in.mp4", Clip(frames, audio_seconds=0.5))
        self.whole = folder / "whole" / name
        self.whole.parent.mkdir()
        code = run_forked(lambda: self._upscale(self.whole), Faults(), self.log)
        assert code == 0, self.log.read_text()
        self.calls = calls_of(self.log)

    def _upscale(self, output: Path, *, resume: bool = False) -> None:
        job.SHORTEST_SEGMENT = 4
        set_up_logging(verbose=False, quiet=True)
        upscale_video(
            UpscaleOptions(
                str(self.source), str(output), model="bicubic", device="cpu", quiet=True, chunk=4,
                warm_up=1, resume=resume,
            )
        )  # fmt: skip

    def check(self, number: int, mode: Mode) -> str:
        """Let a call fail, and see that nothing is lost; what became of the run.

        Returns:
            "finished" or "resumed".

        Raises:
            AssertionError: What must hold does not.
        """
        place = self.folder / f"{mode}_{number}"
        place.mkdir()
        output = place / self.name
        code = run_forked(lambda: self._upscale(output), Faults(number, mode), self.log)
        said = self.log.read_text()
        assert (code == KILLED) == (mode == "killed"), f"exit {code}: {said}"
        outcome = "finished"
        for part in place.glob("*.partial.mp4"):
            assert read_back(part).frames
        if output.exists() and not output.is_dir():
            self._check_film(output, said)
        if code != 0:
            outcome = "resumed"
            overwritten = output.exists() and not (place / f"{self.name}.unfinished").exists()
            if not overwritten:
                again = run_forked(lambda: self._upscale(output, resume=True), Faults(), self.log)
                assert again == 0, f"after {said}: {self.log.read_text()}"
                self._check_film(output, said)
        if code == 0 and "left out" in said:
            outcome = "finished, without its sound"
        elif output.is_dir():
            assert _files(output) == _files(self.whole)
        assert {path.name for path in place.iterdir()} == {self.name}
        shutil.rmtree(place)
        return outcome

    def _check_film(self, output: Path, said: str) -> None:
        if output.is_dir():
            return
        if output.read_bytes() != self.whole.read_bytes():
            assert "left out" in said
            film, whole = read_back(output), read_back(self.whole)
            assert film.times == whole.times
            assert film.packets["video"] == whole.packets["video"]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def faults(film: Film) -> Iterator[tuple[int, Mode]]:
    """Every call of a film, and every way that it can fail."""
    for number in range(len(film.calls)):
        for mode in MODES:
            yield number, mode
