"""The one way in which a model cannot be had."""


class CheckpointError(Exception):
    """The model named cannot be used. The message is one line and says the remedy."""
