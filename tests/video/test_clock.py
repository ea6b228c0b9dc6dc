"""Times that start near 0 and never step back."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

from iart_plugin.video.clock import Clock

PICTURE, SOUND, WORDS = 0, 1, 2


def clock(name="mpegts", start=0):
    return Clock(SimpleNamespace(format=SimpleNamespace(name=name), start_time=start * 10**6))


def test_only_running_clocks_are_set_back():
    assert clock("mpegts", 5).offset(Fraction(5), Fraction(1)) == -5
    assert clock("mpeg", 5).offset(Fraction(5), Fraction(1)) == -5
    assert clock("matroska", 5).offset(Fraction(5), Fraction(1)) == 0


def test_streams_share_a_step_back():
    """Also one without packets around it, and one whose packets lag behind."""
    shared, length = clock(), Fraction(1, 2)

    def shown(stream, *stamps):
        sparse = stream == WORDS
        return [
            s + shared.offset(Fraction(s), length, stream=stream, may_step=not sparse)
            for s in stamps
        ]

    assert shown(PICTURE, 58, 59, 60) == [58, 59, 60]
    assert shown(SOUND, 58, 59) == [58, 59]
    assert shown(WORDS, 10) == [10]
    assert shown(PICTURE, 0, 1) == [60.5, 61.5]
    assert shown(SOUND, 60) == [60]
    assert shown(SOUND, 0, 1) == [60.5, 61.5]
    assert shown(WORDS, 20) == [80.5]
    assert shown(PICTURE, 2) == [62.5]
    assert shared.steps == 1


def test_jitter_is_no_step():
    steady = clock()
    assert [steady.offset(Fraction(s), Fraction(1)) for s in (5, 4, 6)] == [0, 0, 0]
    assert steady.steps == 0
