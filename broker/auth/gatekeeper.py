"""Who may connect through one listener: the return codes 2, 4 and 5, and the rights of who is in.

Owns: the order of the questions about a CONNECT. Must not know: connections, sessions, where the answers are computed
(it is handed somebody who computes them elsewhere).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.auth.acl import Acl
from broker.auth.errors import is_printable_name
from broker.auth.passwords import Passwords
from broker.core.ports import GIVEN_CLIENT_ID, Rights
from broker.wire.codes import ReturnCode
from broker.wire.packets import Connect

#: Runs a job elsewhere, and calls back with its result or its exception.
Submit = Callable[[Callable[[], Any], Callable[[Any, Exception | None], None]], None]


class Stays(Protocol):
    """Says whether a client that is in may stay. `proved`: see core.ports.Gatekeeper.admit."""

    def __call__(self, username: str | None, client_id: str, proved: bool = False) -> bool: ...


@dataclass(slots=True)
class Policy:
    """What a listener's configuration says of its clients; replaced as a whole by a reload."""

    passwords: Passwords | None = None
    acl: Acl | None = None
    allow_anonymous: bool = True
    proof: str | None = None  #: how the transport proves a user name; None: it proves none
    deny_users: Sequence[str] = ()
    client_ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    client_id_prefixes: Sequence[str] = ()
    max_client_id: int = 65_535
    max_keepalive: float = 0.0


class Gatekeeper:
    """Implements core.ports.Gatekeeper by a Policy, which may be replaced at any time."""

    def __init__(self, policy: Policy, submit: Submit) -> None:
        self.policy = policy
        self._submit = submit

    @property
    def max_keepalive(self) -> float:
        return self.policy.max_keepalive

    def admit(self, connect: Connect, decided: Callable[[ReturnCode], None], proved: bool = False) -> ReturnCode | None:
        """See core.ports.Gatekeeper. Only checking a password takes time."""
        policy = self.policy
        client_id = connect.client_id
        if client_id and not self._permits(client_id):
            return ReturnCode.IDENTIFIER_REJECTED  # [MQTT-3.1.3-9]
        username = connect.username
        if proved:
            usable = username and is_printable_name(username) and policy.proof is not None
            return self._known(connect) if usable else ReturnCode.NOT_AUTHORIZED
        if username is None:
            return ReturnCode.ACCEPTED if policy.allow_anonymous else ReturnCode.NOT_AUTHORIZED
        passwords = policy.passwords
        if passwords is None:
            # There is nothing to check the name against: it is anonymous, whatever it says. Where others prove theirs,
            # it could be taken for proved.
            anonymous = policy.allow_anonymous and policy.proof is None
            return self._known(connect) if anonymous else ReturnCode.NOT_AUTHORIZED
        password = connect.password if connect.password is not None else b""
        if passwords.recall(username, password):
            return self._known(connect)

        def checked(right: Any, error: Exception | None) -> None:
            if error is not None:
                raise error  # a bug: told as one by the loop
            if self.policy is not policy:  # replaced meanwhile: what was checked may hold no more
                code = self.admit(connect, decided)
                if code is not None:
                    decided(code)
                return
            decided(self._known(connect) if right else ReturnCode.BAD_USER_NAME_OR_PASSWORD)

        self._submit(lambda: passwords.check(username, password), checked)
        return None

    def replace(self, policy: Policy) -> Stays:
        """Go by another policy from now on. Returns who of those that are in may stay."""
        old, self.policy = self.policy, policy

        def stays(username: str | None, client_id: str, proved: bool = False) -> bool:
            # One that the broker gave is not the client's to choose.
            if not client_id.startswith(GIVEN_CLIENT_ID) and not self._permits(client_id):
                return False
            if username is None:
                return policy.allow_anonymous
            if proved:
                return policy.proof == old.proof and self._may(username, client_id)
            if policy.passwords is None:
                return policy.allow_anonymous and policy.proof is None and self._may(username, client_id)
            known = old.passwords is not None and policy.passwords.agrees(old.passwords, username)
            return known and self._may(username, client_id)

        return stays

    def rights(self, username: str | None, client_id: str) -> Rights | None:
        policy = self.policy
        if policy.acl is None:
            return None
        # A name that nobody has checked gives no rights.
        checked = policy.passwords is not None or policy.proof is not None
        return policy.acl.rights(username if checked else None, client_id)

    def _permits(self, client_id: str) -> bool:
        policy = self.policy
        if len(client_id) > policy.max_client_id:
            return False
        return not policy.client_id_prefixes or client_id.startswith(tuple(policy.client_id_prefixes))

    def _known(self, connect: Connect) -> ReturnCode:
        """The user is who they say."""
        assert connect.username is not None
        if self._may(connect.username, connect.client_id):
            return ReturnCode.ACCEPTED
        return ReturnCode.NOT_AUTHORIZED

    def _may(self, username: str, client_id: str) -> bool:
        """May this user connect, and under this Client Identifier?"""
        policy = self.policy
        if username in policy.deny_users:
            return False
        patterns = policy.client_ids.get(username, policy.client_ids.get("*"))
        return patterns is None or any(_fits(pattern, username, client_id) for pattern in patterns)


def _fits(pattern: str, username: str, client_id: str) -> bool:
    """`*` is any run of characters, `%u` the user's name; everything else stands for itself."""
    parts = [re.escape(part.replace("%u", username)) for part in pattern.split("*")]
    return re.fullmatch(".*".join(parts), client_id, re.DOTALL) is not None
