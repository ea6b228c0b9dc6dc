"""Free main memory, and what a container leaves of it."""

from __future__ import annotations

import psutil
import pytest

from iart_plugin.inference import host_memory


def group(folder, names, limit, used, cached):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@pytest.mark.parametrize(
    ("line", "root", "names"), [("0::/a/b", "", V2), ("4:cpu,memory:/a/b", "memory", V1)]
)
def test_the_narrowest_control_group_counts(tmp_path, line, root, names):
    groups = tmp_path / "cgroup"
    groups.write_text(f"9:pids:/\n{line}\n")
    mounted = tmp_path / "mounted"
    group(mounted / root / "a" / "b", names, "max" if names is V2 else 2**63, 10, 0)
    group(mounted / root / "a", names, 1000, 700, 50)
    group(mounted / root, names, 5000, 0, 0)
    rooms = host_memory._control_group_rooms(groups, mounted)
    assert min(rooms) == 350
    assert 5000 in rooms


def test_no_control_groups(tmp_path):
    assert host_memory._control_group_rooms(tmp_path / "absent", tmp_path) == []


def test_free_memory_is_what_the_container_leaves(monkeypatch):
    free = host_memory.free_host_memory()
    assert 0 < free <= psutil.virtual_memory().total
    monkeypatch.setattr(host_memory, "_control_group_rooms", lambda: [123, -5])
    assert host_memory.free_host_memory() == 0
