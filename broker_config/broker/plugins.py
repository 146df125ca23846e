"""The two amqtt plugins: they translate amqtt's questions to the gatekeeper's, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from amqtt.contexts import Action, BaseContext
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin

from broker_config.broker.gatekeeper import Gatekeeper
from broker_config.policy import Act, Principal

if TYPE_CHECKING:
    from amqtt.session import Session

PRINCIPAL = "iot.principal"
"""Session attribute that holds who was admitted."""


@dataclass
class GatekeeperConfig:
    """What both plugins are given.

    amqtt makes a plugin's configuration from a dictionary; the gatekeeper travels in it as it is.
    """

    gatekeeper: Gatekeeper


class AdmitPlugin(BaseAuthPlugin):
    """Tells amqtt who a session belongs to."""

    Config = GatekeeperConfig

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._gatekeeper = cast("GatekeeperConfig", context.config).gatekeeper

    async def authenticate(self, *, session: Session) -> bool:
        """Give the session its principal; `admission.py` has checked the password before."""
        principal = self._gatekeeper.admitted(session.username)
        if principal is None:
            return False
        session.attributes[PRINCIPAL] = principal
        return True


class TopicPlugin(BaseTopicPlugin):
    """Answers amqtt's "may this session publish, subscribe, receive?"."""

    Config = GatekeeperConfig

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._gatekeeper = cast("GatekeeperConfig", context.config).gatekeeper

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,
        topic: str | None = None,
        action: Action | None = None,
    ) -> bool:
        """True when the policy allows it; a session that was never admitted may do nothing."""
        principal = session.attributes.get(PRINCIPAL) if session else None
        if session is None or topic is None or not isinstance(principal, Principal):
            return False
        if action is Action.RECEIVE:
            return self._gatekeeper.delivers(principal, topic)
        act = Act.PUBLISH if action is Action.PUBLISH else Act.SUBSCRIBE
        return self._gatekeeper.allows(principal, act, topic, session.remote_address or "")
