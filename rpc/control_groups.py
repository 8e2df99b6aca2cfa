"""What Linux grants this process: its control groups, of version 1 and 2, and those around them.

A container is a group, and so may be a part of one. What any group on the way up
to the root allows is a bound, so each is looked at and the narrowest counts.
Elsewhere than on Linux there are none.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """The groups of this process.

    Attributes:
        mount: where their files are.
        membership: says which group of each controller this process is in.
    """

    mount: Path = Path("/sys/fs/cgroup")
    membership: Path = Path("/proc/self/cgroup")

    def folders(self, controller: str) -> Iterator[Path]:
        """Yields where a controller's files may be, from this process's own group upwards."""
        try:
            lines = self.membership.read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, _, rest = line.partition(":")
            controllers, _, group = rest.partition(":")
            if controllers == "":  # version 2, where every controller is in one tree
                yield from _upwards(self.mount, group)
            elif controller in controllers.split(","):
                yield from _upwards(self.mount / controller, group)

    def num_cores(self) -> int | None:
        """Returns the cores whose time this process may use, rounded up; None without a bound."""
        quotas = [quota for folder in self.folders("cpu") if (quota := _quota(folder)) is not None]
        return max(1, -int(-min(quotas) // 1)) if quotas else None


def available_cores(groups: ControlGroups | None = None) -> int:
    """Returns the cores that this process may use, which in a container may be few.

    More threads than that would wait for each other: a group that has used up its
    time stands still until the next period.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    granted = (groups or ControlGroups()).num_cores()
    return min(allowed or 1, granted or allowed or 1)


def _upwards(root: Path, group: str) -> Iterator[Path]:
    """Yields the folders of a group and of those around it, the root's last.

    A group may be named as the host sees it while only what is below it is
    mounted; then the root is the group, and the other folders do not exist.
    """
    path = PurePosixPath(group.lstrip("/"))
    if ".." not in path.parts:
        yield from (root / each for each in (path, *path.parents) if each.parts)
    yield root


def _quota(folder: Path) -> float | None:
    """Reads how many cores' time a group may use, of version 2 or 1."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return cores if cores > 0 else None  # -1
