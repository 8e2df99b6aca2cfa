"""Where modules of the tiny Llama are, by the name of a test's case."""

import pytest

ONE = {"": "cuda:0"}

# As `auto`, `balanced` and `sequential` split a model: the norm is where the last layer is.
TWO = {
    "model.embed_tokens": "cuda:0",
    "model.layers.0": "cuda:0",
    "model.layers.1": "cuda:0",
    "model.layers.2": "cuda:1",
    "model.norm": "cuda:1",
    "model.rotary_emb": "cuda:0",
    "lm_head": "cuda:1",
}
FIRST_AND_LAST = TWO | {"model.layers.1": "cuda:1", "model.norm": "cuda:0", "lm_head": "cuda:0"}
BY_HOOKS = dict.fromkeys(TWO, "cuda:0")
SECOND = dict.fromkeys(TWO, "cuda:1")
LAST_LAYER_ON_CPU = (
    TWO
    | {"model.embed_tokens": "cpu", "model.layers.2": "cpu", "model.norm": "cpu"}
    | {"lm_head": "cuda:0"}
)
ENDS_ON_CPU = BY_HOOKS | {"model.embed_tokens": "cpu", "lm_head": "cpu"}

IN_CI = {"two": TWO, "the last layer on the CPU": LAST_LAYER_ON_CPU}
REST = {
    "first and last": FIRST_AND_LAST,
    "one, by hooks": BY_HOOKS,
    "the second": SECOND,
    "embedding and head on the CPU": ENDS_ON_CPU,
}
SPLITS = [
    *(pytest.param(device_map, id=name) for name, device_map in IN_CI.items()),
    *(
        pytest.param(device_map, id=name, marks=pytest.mark.full)
        for name, device_map in REST.items()
    ),
]
STRATEGIES = [
    "auto",
    pytest.param("balanced", marks=pytest.mark.full),
    pytest.param("sequential", marks=pytest.mark.full),
]
