"""An amount that each caller may use in a period, and that comes back evenly."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rpc import errors
from rpc.identity import principal
from rpc.identity.principal import QuotaName

# So many callers are remembered; then those are forgotten who have their whole amount again.
_MANY = 1024


@dataclass(slots=True)
class _Account:
    left: float
    at: float


class Allowance:
    """What is left for each caller. Used from one event loop.

    Who uses more than is left owes it, and waits until it has come back. So an answer of unknown
    length needs no estimate, and a request of any size is served at some time.
    """

    def __init__(self, name: QuotaName, default: int, period_s: float) -> None:
        """Gives every caller its whole amount.

        Args:
            name: the quota.
            default: the amount of a caller without one of its own; 0 means no limit.
            period_s: time in which the whole amount comes back.
        """
        self._name: QuotaName = name
        self._default = default
        self._period_s = period_s
        self._accounts: dict[str, _Account] = {}

    def check(self, amount: int) -> None:
        """Checks that an amount is left for who makes this call, or all that there can be.

        Raises:
            QuotaExceeded: it is not; with the time until it is.
        """
        limit = principal.quota(self._name, self._default)
        if limit and (missing := min(amount, limit) - self._account(limit).left) > 0:
            delay_s = missing * self._period_s / limit
            raise errors.QuotaExceeded(self._name, limit, retry_delay_s=delay_s)

    @contextmanager
    def used(self, amount: int) -> Iterator[None]:
        """Takes an amount for what the block does; nothing if that fails.

        Raises:
            QuotaExceeded: it is not left.
        """
        self.check(amount)
        self.use(amount)
        try:
            yield
        except BaseException:
            self.use(-amount)
            raise

    def use(self, amount: int) -> None:
        """Takes an amount from who makes this call."""
        if limit := principal.quota(self._name, self._default):
            self._account(limit).left -= amount

    def _account(self, limit: int) -> _Account:
        """Returns the account of who makes this call, with what has come back."""
        now = time.monotonic()
        name = principal.caller()
        account = self._accounts.get(name)
        if account is None:
            if len(self._accounts) >= _MANY:
                self._forget(now)
            account = self._accounts[name] = _Account(limit, now)
        account.left = min(limit, account.left + (now - account.at) * limit / self._period_s)
        account.at = now
        return account

    def _forget(self, now: float) -> None:
        old = [name for name, each in self._accounts.items() if now - each.at > self._period_s]
        for name in old:
            if self._accounts[name].left >= 0:
                del self._accounts[name]
