"""Who may connect through one listener: the return codes 2, 3, 4 and 5, and the rights of who is in.

Owns: the order of the questions about a CONNECT. Must not know: connections, sessions, when and where the answers are
computed (checks).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..addresses import origin_of
from ..core.ports import GIVEN_CLIENT_ID, GiveUp, Rights
from ..wire.codes import ReturnCode
from ..wire.packets import Connect
from .acl import Acl
from .checks import Checks
from .errors import is_printable_name
from .passwords import Passwords

#: What `origin_of` makes of ::1.
LOOPBACK_6 = origin_of("[::1]:0")


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

    def __init__(self, policy: Policy, checks: Checks, listener: str = "") -> None:
        self.policy = policy
        self.listener = listener
        self._checks = checks

    @property
    def max_keepalive(self) -> float:
        return self.policy.max_keepalive

    def admit(
        self, connect: Connect, peer: str, decided: Callable[[ReturnCode], None], proved: bool = False
    ) -> ReturnCode | GiveUp:
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
        password = connect.password
        if password is None:
            # It has not said an empty one, which may be somebody's; and no user differs from another here.
            return ReturnCode.BAD_USER_NAME_OR_PASSWORD
        if passwords.recall(username, password):
            return self._known(connect)
        return self._check(passwords, username, password, connect, peer, decided)

    def _check(
        self,
        passwords: Passwords,
        username: str,
        password: bytes,
        connect: Connect,
        peer: str,
        decided: Callable[[ReturnCode], None],
    ) -> ReturnCode | GiveUp:
        """The end of `admit`, where it takes a worker."""
        policy = self.policy
        give_up: GiveUp

        def checked(right: Any, error: Exception | None) -> None:
            nonlocal give_up
            if error is not None:
                raise error  # a bug: told as one by the loop
            if self.policy is policy:
                decided(self._known(connect) if right else ReturnCode.BAD_USER_NAME_OR_PASSWORD)
                return
            again = self.admit(connect, peer, decided)  # replaced meanwhile: what was checked may hold no more
            if isinstance(again, ReturnCode):
                decided(again)
            else:
                give_up = again

        question = self._checks.submit(
            (passwords, username, password), lambda: passwords.check(username, password), checked, peer, _size(connect)
        )
        if question is None:
            return ReturnCode.SERVER_UNAVAILABLE
        give_up = question.cancel
        return lambda: give_up()

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
        acl = self.policy.acl
        return None if acl is None else acl.rights(self.proven_name(username), client_id)

    def origin(self, peer: str) -> str:
        """See core.ports.Gatekeeper: a loopback address may be that of a proxy, with all its clients behind it."""
        origin = origin_of(peer)
        return "" if origin.startswith(("127.", "unix:")) or origin == LOOPBACK_6 else origin

    def proven_name(self, username: str | None) -> str | None:
        return username if self.proves_names else None

    @property
    def proves_names(self) -> bool:
        """Is a user name worth anything here?"""
        return self.policy.passwords is not None or self.policy.proof is not None

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


def _size(connect: Connect) -> int:
    """Bytes that it holds."""
    will = 0 if connect.will is None else len(connect.will.topic) + len(connect.will.payload)
    return len(connect.client_id) + len(connect.username or "") + len(connect.password or b"") + will


def _fits(pattern: str, username: str, client_id: str) -> bool:
    """`*` is any run of characters, `%u` the user's name; everything else stands for itself. Not by a regular
    expression: with two stars, it would take minutes over an identifier that was made for it."""
    first, *rest = (part.replace("%u", username) for part in pattern.split("*"))
    if not rest:
        return client_id == first
    last = rest.pop()
    pos, end = len(first), len(client_id) - len(last)
    if pos > end or not (client_id.startswith(first) and client_id.endswith(last)):
        return False
    for part in rest:
        found = client_id.find(part, pos, end)
        if found < 0:
            return False
        pos = found + len(part)
    return True
