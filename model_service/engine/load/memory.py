"""How much memory this process may still take, on its machine and in its container."""

import psutil

from rpc.control_groups import ControlGroups

# Limit, use, and the name in `memory.stat` of what is only a copy of files: versions 2 and 1.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes(groups: ControlGroups | None = None) -> int:
    """Returns the bytes that can be had without being killed for it."""
    available = int(psutil.virtual_memory().available)
    for folder in (groups or ControlGroups()).folders("memory"):
        for limit, use, files in _FILES:
            try:
                most = int((folder / limit).read_text())
                used = int((folder / use).read_text())
                lines = (folder / "memory.stat").read_text().splitlines()
            except (OSError, ValueError):  # no such version, or no limit ("max")
                continue
            counts = dict(line.split() for line in lines)
            available = min(available, most - used + int(counts.get(files, 0)))
    return max(available, 0)
