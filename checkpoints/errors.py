"""The errors of a model that cannot be used."""


class CheckpointError(Exception):
    """The model named cannot be used. The message is one line and says the remedy."""


class CheckpointAbsent(CheckpointError):
    """The model named is not there, and this process cannot obtain it. Another one still may."""
