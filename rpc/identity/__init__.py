"""Who calls, what that caller may do, and how much of it."""

from rpc.identity.allowance import Allowance as Allowance
from rpc.identity.principal import Principal as Principal
from rpc.identity.principal import QuotaName as QuotaName
from rpc.identity.principal import caller as caller
from rpc.identity.principal import current as current
from rpc.identity.principal import quota as quota
from rpc.identity.principal import require as require
from rpc.identity.roles import Role as Role
