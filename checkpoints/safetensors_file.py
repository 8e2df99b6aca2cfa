"""Checks the frame of a safetensors file without reading its tensors.

The format: 8 bytes of header size, little-endian, a JSON header with the `data_offsets` of each
tensor, then the tensors (https://huggingface.co/docs/safetensors).
"""

import json
import struct
from pathlib import Path

from checkpoints.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library


def check(path: Path) -> list[list[int]]:
    """Checks that the header can be read and that the file is as long as it says.

    Returns:
        The shape of each tensor.

    Raises:
        CheckpointError: the file is cut off or is not safetensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        header_bytes = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
        if header_bytes > min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(f"{path} is not a safetensors file, or is cut off.")
        try:
            header = json.loads(file.read(header_bytes))
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            ends = [entry["data_offsets"][1] for entry in tensors]
            shapes = [[int(size) for size in entry["shape"]] for entry in tensors]
            expected = 8 + header_bytes + max(ends, default=0)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} has a damaged safetensors header.") from error
    if size != expected:
        raise CheckpointError(
            f"{path} has {size} bytes, but its header says {expected}: download or copy it again."
        )
    return shapes
