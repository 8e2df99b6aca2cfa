"""The service config that clients of every language share, `protos/service_config.json`.

The balancing goes to gRPC. What may be repeated, and how often, is followed by `retries` instead:
it knows which refusals of ours will pass, and waits as long as they say.
"""

import json
from importlib import resources
from typing import Any, Final

_CONFIG: Final[dict[str, Any]] = json.loads(
    resources.files(__package__ or "").joinpath("service_config.json").read_text()
)
_METHODS: Final[dict[str, Any]] = _CONFIG["methodConfig"][0]

POLICY: Final[dict[str, Any]] = _METHODS["retryPolicy"]
"""How often a call is made, and how long is waited before it is made again."""

THROTTLING: Final[dict[str, Any]] = _CONFIG["retryThrottling"]
"""When calls are not repeated at all."""

IDEMPOTENT_METHODS: Final = frozenset(
    f"{each['service']}.{each['method']}" for each in _METHODS["name"]
)
"""Full names of the methods whose repetition changes nothing.

`AddTokens` and `SetSpecialTokens` are among them because this client always sends an idempotency
key, and `Generate` because nothing of a failed attempt remains. Session steps are not: a step that
was applied and whose answer was lost must be seen by the caller.
"""

BALANCING: Final = json.dumps({"loadBalancingConfig": _CONFIG["loadBalancingConfig"]})
"""What a channel is told."""


def seconds(duration: str) -> float:
    """Reads a duration as JSON has it, `0.1s`."""
    return float(duration.removesuffix("s"))
