"""Checkpoints of the Hugging Face hub: `org/name`, or `org/name@revision` to pin one."""

import re
from pathlib import Path

from checkpoints.errors import CheckpointAbsent, CheckpointError

_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?")

# Data only. Files of folders within the repository are other formats of the same model.
ALLOWED = ["*.json", "*.safetensors", "*.jinja"]
IGNORED = ["*/*", "consolidated*"]


def is_id(model: str) -> bool:
    """Tells whether a name has the form of a hub id."""
    return _ID.fullmatch(model) is not None


def download(model: str) -> Path:
    """Returns the folder of a snapshot, downloaded unless the hub's own cache has it.

    Raises:
        CheckpointAbsent: the hub cannot be reached, or may not be.
        CheckpointError: the hub does not have the model.
    """
    # Imported late: it takes a second, and most starts have a folder.
    import huggingface_hub
    from huggingface_hub import errors

    match = _ID.fullmatch(model)
    if match is None:
        raise ValueError(f"{model} is not a hub id. This is a bug.")
    try:
        folder = huggingface_hub.snapshot_download(
            match["repository"],
            revision=match["revision"],
            allow_patterns=ALLOWED,
            ignore_patterns=IGNORED,
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise CheckpointError(
            f"The hub has no model {model}, or it is gated: check the name, or log in with "
            "`hf auth login`. If a folder was meant, it does not exist."
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise CheckpointAbsent(
            f"The hub cannot be reached and {model} is not in its cache: download it where there "
            f"is a network (`hf download {match['repository']} --local-dir DIR`) and name DIR "
            "with --model. If a folder was meant, it does not exist."
        ) from error
    return Path(folder)
