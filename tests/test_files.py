import errno
import os

import pytest

from iart_plugin.files import AtomicFile, remove_left_overs, write_atomically


def test_a_file_takes_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "a.png"
    with AtomicFile(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
        assert temporary.parent == tmp_path and temporary.suffix == ".part"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")
    with pytest.raises(KeyboardInterrupt), AtomicFile(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_atomically(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_text_is_written_as_it_is(tmp_path):
    write_atomically(tmp_path / "a", "ä\nb\n")
    assert (tmp_path / "a").read_bytes() == "ä\nb\n".encode()


@pytest.mark.parametrize("name", ["x" * 251 + ".mp4", "ä" * 120 + ".mp4"])
def test_the_longest_names_that_a_file_system_takes(tmp_path, name):
    write_atomically(tmp_path / name, b"x")
    assert os.listdir(tmp_path) == [name]


def test_a_folder(tmp_path):
    with AtomicFile(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
    with pytest.raises(ValueError, match="stop"), AtomicFile(tmp_path / "other") as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
        raise ValueError("stop")
    assert os.listdir(tmp_path) == ["folder"]


def test_another_name_may_be_chosen_at_the_end(tmp_path):
    file = AtomicFile(tmp_path / "a")
    file.temporary.write_bytes(b"x")
    file.commit(tmp_path / "b")
    file.discard()
    assert os.listdir(tmp_path) == ["b"]


def test_left_overs(tmp_path):
    AtomicFile(tmp_path / "a.pth").temporary.touch()
    (tmp_path / "kept.part").touch()
    remove_left_overs(tmp_path)
    assert os.listdir(tmp_path) == ["kept.part"]
