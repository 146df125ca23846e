"""Lets clients in and lets them use topics, by the policy, and records every refusal.

The rules are in `broker_config.policy`; this shell looks up who is enrolled and reads the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker_config.broker.decision_log import PendingDecisions
from broker_config.clock import now_ms
from broker_config.events import Event, record
from broker_config.passwords import matches_password
from broker_config.policy import Act, Principal, decide_connect, decide_topic, may_receive
from broker_config.topics import is_identity

if TYPE_CHECKING:
    from broker_config.policy import Policy
    from broker_config.refusals import Refusal
    from broker_config.registry import Registry

MAX_TOPIC_CHARS = 200
"""A denied topic is recorded up to this length."""


class Gatekeeper:
    """One policy revision and one registry, asked for every CONNECT and every topic."""

    def __init__(self, policy: Policy, registry: Registry) -> None:
        self.policy = policy
        self.revision = policy.revision
        self.pending = PendingDecisions()
        self._registry = registry

    def admit(
        self,
        *,
        client_id: str,
        username: str | None,
        password: str | None,
        address: str,
        will_topic: str | None = None,
    ) -> Principal | None:
        """Who the client is, or None when it is refused.

        Args:
            will_topic: where its last will goes; it needs the right to publish there.

        Raises:
            StorageError: when the registry cannot be read.
        """
        entry = self._registry.get(username) if username else None
        matches = (
            entry is not None
            and password is not None
            and matches_password(password, entry.password_hash)
        )
        principal = Principal(entry.name, entry.role) if entry else None
        refusal = decide_connect(
            self.policy,
            client_id=client_id,
            username=username,
            has_password=password is not None,
            principal=principal,
            revoked=entry is not None and entry.revoked_ms is not None,
            password_matches=matches,
        )
        if refusal is not None:
            self._refused(refusal, username or "", address, "")
            return None
        if (
            principal is not None
            and will_topic is not None
            and not self.allows(principal, Act.PUBLISH, will_topic, address)
        ):
            return None
        record(Event.CLIENT_CONNECTED, client=client_id, address=address)
        return principal

    def admitted(self, username: str | None) -> Principal | None:
        """Who that is, for a connection that was admitted.

        Raises:
            StorageError: when the registry cannot be read.
        """
        entry = self._registry.get(username) if username else None
        return Principal(entry.name, entry.role) if entry else None

    def allows(self, principal: Principal, act: Act, topic: str, address: str) -> bool:
        """Whether an admitted client may publish on a topic or subscribe to a filter."""
        decision = decide_topic(self.policy, principal, act, topic)
        if decision.refusal is not None:
            self._refused(decision.refusal, principal.name, address, topic)
        return decision.refusal is None

    def delivers(self, principal: Principal, topic: str) -> bool:
        """Whether a message on `topic` may go to an admitted client."""
        return may_receive(self.policy, principal, topic)

    def _refused(self, refusal: Refusal, claimed: str, address: str, topic: str) -> None:
        device = claimed if is_identity(claimed) else ""
        self.pending.add(
            refusal,
            at_ms=now_ms(),
            device=device,
            address=address,
            topic=topic[:MAX_TOPIC_CHARS],
            policy=self.revision,
        )
