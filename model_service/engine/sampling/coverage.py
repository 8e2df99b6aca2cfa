"""Which configurations the sampler's fast path does exactly: the one decision, made once.

A field is not covered until its row in `parameters.py` says so: until then a
sequence that uses it is left to Hugging Face's classes.
"""

from model_service.protocol.parameters import CONFIG_PARAMETERS, GenerationConfig

_UNCOVERED = {
    do_sample: [
        (row.name, row.default)
        for row in CONFIG_PARAMETERS.values()
        if row.fast_path not in ("always", "when sampling" if do_sample else "when greedy")
    ]
    for do_sample in (False, True)
}
"""Fields that it does not understand, with the value that turns them off, by `do_sample`."""


def covers(config: GenerationConfig) -> bool:
    """Whether every field that is not covered has the value that turns it off."""
    return all(getattr(config, name) == off for name, off in _UNCOVERED[config.do_sample])
