"""How much memory this process may still take: that of the machine, and that of its container."""

from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")

# Limit, use, and the name in `memory.stat` of what is only a copy of files: versions 2 and 1.
_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_bytes(cgroups: Path = CGROUPS) -> int:
    """Returns the bytes that can be had without being killed for it.

    Args:
        cgroups: where Linux says what a container may have; elsewhere it does not exist.
    """
    available = int(psutil.virtual_memory().available)
    for limit, use, statistics, files in _FILES:
        try:
            most = int((cgroups / limit).read_text())
            used = int((cgroups / use).read_text())
            lines = (cgroups / statistics).read_text().splitlines()
        except (OSError, ValueError):  # no such version, or no limit ("max")
            continue
        counts = dict(line.split() for line in lines)
        available = min(available, most - used + int(counts.get(files, 0)))
    return max(available, 0)
