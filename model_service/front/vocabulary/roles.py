"""What the roles that revisions give mean for requests of these revisions."""

from collections.abc import Mapping

import msgspec

from model_service.protocol import EngineInfo
from vocabulary import Role


def with_roles(info: EngineInfo, roles: Mapping[Role, int]) -> EngineInfo:
    """Describes a model as requests of a revision see it.

    The id that a revision made the end of a sequence ends sequences besides those that end them
    for the model itself: its weights were made to generate those.

    Args:
        info: the model at revision 0.
        roles: the roles that revisions have given.
    """
    if not roles:
        return info
    ends = info.default_config.eos_token_ids
    if "eos" in roles and roles["eos"] not in ends:
        ends = (*ends, roles["eos"])
    return msgspec.structs.replace(
        info,
        eos_token_ids=list(ends),
        bos_token_id=roles.get("bos", info.bos_token_id),
        pad_token_id=roles.get("pad", info.pad_token_id),
        default_config=msgspec.structs.replace(info.default_config, eos_token_ids=ends),
    )
