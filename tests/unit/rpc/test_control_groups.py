import os
from pathlib import Path

import pytest

from rpc.control_groups import ControlGroups, available_cores

MANY = len(os.sched_getaffinity(0))


@pytest.fixture
def groups(tmp_path: Path):
    """Writes a tree of control groups and says which of them this process is in."""

    def write(membership: str, files: dict[str, str]) -> ControlGroups:
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (tmp_path / "membership").write_text(membership)
        return ControlGroups(tmp_path / "cgroup", tmp_path / "membership")

    return write


def quota_1(quota: int) -> dict[str, str]:
    return {"cpu/cpu.cfs_quota_us": f"{quota}\n", "cpu/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("quota", "cores"), [("50000", 1), ("100000", 1), ("150000", 2), ("800000", 8), ("max", None)]
)
def test_a_container_of_version_2_has_its_quota_rounded_up(groups, quota, cores):
    assert groups("0::/\n", {"cpu.max": f"{quota} 100000\n"}).num_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(50000, 1), (150000, 2), (800000, 8), (-1, None)])
def test_a_container_of_version_1_has_its_quota_rounded_up(groups, quota, cores):
    membership = "5:memory:/docker/1f\n3:cpu,cpuacct:/docker/1f\n0::/\n"
    assert groups(membership, quota_1(quota)).num_cores() == cores


def test_the_narrowest_of_nested_groups_counts(groups):
    files = {
        "kubepods/cpu.max": "1600000 100000\n",
        "kubepods/pod7/cpu.max": "250000 100000\n",
        "kubepods/pod7/engine/cpu.max": "max 100000\n",
        "kubepods/pod8/cpu.max": "100000 100000\n",  # a neighbour's
    }
    assert groups("0::/kubepods/pod7/engine\n", files).num_cores() == 3


def test_a_group_of_version_1_that_is_mounted_below_its_name_is_found(groups):
    files = {"cpu/slice/cpu.cfs_quota_us": "200000\n", "cpu/slice/cpu.cfs_period_us": "50000\n"}
    assert groups("3:cpu,cpuacct:/slice/unit\n", files).num_cores() == 4


def test_a_group_outside_of_what_is_mounted_leaves_the_root(groups):
    assert groups("0::/../../other\n", {"cpu.max": "300000 100000\n"}).num_cores() == 3


def test_damaged_or_missing_files_bound_nothing(groups, tmp_path):
    assert groups("0::/\n", {"cpu.max": "much\n"}).num_cores() is None
    assert groups("nonsense\n", {}).num_cores() is None
    assert ControlGroups(tmp_path, tmp_path / "none").num_cores() is None


def test_a_quota_below_the_cores_of_the_machine_bounds_the_threads(groups):
    assert available_cores(groups("0::/\n", {"cpu.max": "100000 100000\n"})) == 1


def test_a_quota_above_the_cores_of_the_machine_adds_none(groups):
    assert available_cores(groups("0::/\n", {"cpu.max": "99900000 100000\n"})) == MANY
