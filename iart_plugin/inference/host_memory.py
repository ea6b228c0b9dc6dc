"""Finds out how much main memory is free, inside a container too."""

from __future__ import annotations

import os
from pathlib import Path


def free_host_memory() -> int:
    """Bytes of main memory that are available, within the limits of a container if there is one."""
    return max(0, min([_available(), *_control_group_rooms()]))


def _available() -> int:
    try:
        import psutil
    except ImportError:  # the benchmark of a GPU runs where PyTorch alone is installed
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return psutil.virtual_memory().available


def _control_group_rooms(
    groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Bytes still available in each of this process's Linux control groups that has a limit.

    A group's usage includes the cached pages of files. They count as available here, because the
    kernel frees them first.
    """
    rooms: list[int] = []
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return rooms  # no Linux, or no control groups
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2
            root, limit, used, cached = mounted, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):  # version 1
            root, limit, used = mounted / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                rooms += _room(folder, limit, used, cached)
    return rooms


def _room(folder: Path, limit: str, used: str, cached: str) -> list[int]:
    try:
        most = int((folder / limit).read_text())
        size = int((folder / used).read_text())
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []  # the container does not show this group, or it has no limit ("max")
    return [most - size + int(fields.get(cached, 0))]
