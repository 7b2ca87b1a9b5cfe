"""Who may connect through one listener: the return codes 2, 3, 4 and 5, and the rights of who is in.

Owns: the order of the questions about a CONNECT. Must not know: connections, sessions, when and where the answers are
computed (checks), the steps of an authentication (dialogue).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..addresses import origin_of
from ..core.ports import GIVEN_CLIENT_ID, Failed, GiveUp, Rights, Verdict
from ..wire.codes import ReturnCode
from ..wire.packets import Connect
from .acl import Acl
from .checks import Checks
from .dialogue import ScramDialogue
from .errors import is_printable_name
from .passwords import Passwords

ACCEPTED = Verdict(ReturnCode.ACCEPTED)
_DENIED = "the user is in deny_users"
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
    allow_user_change: bool = False  #: may one user take over the session of another?


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
        self, connect: Connect, peer: str, decided: Callable[[Verdict], None], proved: bool = False
    ) -> Verdict | GiveUp:
        """See core.ports.Gatekeeper. Only checking a password takes time."""
        policy = self.policy
        client_id = connect.client_id
        if client_id and not self._permits(client_id):
            return Verdict(ReturnCode.IDENTIFIER_REJECTED, self._why_not(client_id))  # [MQTT-3.1.3-9]
        username = connect.username
        if proved:
            why = self._why_no_proof(username)
            return Verdict(ReturnCode.NOT_AUTHORIZED, why) if why else self._known(username, client_id)
        if username is None:
            if policy.allow_anonymous:
                return ACCEPTED
            missing = "user name was given" if policy.proof is None else "certificate was shown"
            return Verdict(ReturnCode.NOT_AUTHORIZED, f"no {missing}, and allow_anonymous is false")
        passwords = policy.passwords
        if passwords is None:
            # There is nothing to check the name against: it is anonymous, whatever it says. Where others prove theirs,
            # it could be taken for proved.
            if policy.allow_anonymous and policy.proof is None:
                return self._known(username, client_id)
            return Verdict(ReturnCode.NOT_AUTHORIZED, self._why_unchecked())
        password = connect.password
        if password is None:
            # It has not said an empty one, which may be somebody's; and no user differs from another here.
            return Verdict(ReturnCode.BAD_USER_NAME_OR_PASSWORD, "no password was given")
        if passwords.recall(username, password):
            return self._known(username, client_id)
        return self._check(passwords, username, password, connect, peer, decided)

    def _check(
        self,
        passwords: Passwords,
        username: str,
        password: bytes,
        connect: Connect,
        peer: str,
        decided: Callable[[Verdict], None],
    ) -> Verdict | GiveUp:
        """The end of `admit`, where it takes a worker."""
        policy = self.policy
        give_up: GiveUp

        def checked(right: Any, error: Exception | None) -> None:
            nonlocal give_up
            if error is not None:
                raise error  # a bug: told as one by the loop
            if self.policy is policy:
                decided(self._known(username, connect.client_id) if right else _wrong(passwords, username))
                return
            again = self.admit(connect, peer, decided)  # replaced meanwhile: what was checked may hold no more
            if isinstance(again, Verdict):
                decided(again)
            else:
                give_up = again

        question = self._checks.submit(
            (passwords, username, password), lambda: passwords.check(username, password), checked, peer, _size(connect)
        )
        if question is None:
            return Verdict(ReturnCode.SERVER_UNAVAILABLE, "too many passwords from this address wait to be checked")
        give_up = question.cancel
        return lambda: give_up()

    @property
    def methods(self) -> Collection[str]:
        passwords = self.policy.passwords
        return () if passwords is None else passwords.methods

    def begin(self, method: str, client_id: str | None, username: str | None, peer: str) -> ScramDialogue | None:
        """See core.ports.Gatekeeper: the methods are those for which the password file has entries."""
        passwords = self.policy.passwords
        if passwords is None or method not in passwords.methods:
            return None

        def refusal(proved: str) -> Failed | None:
            verdict = self._proved(passwords, proved, client_id)
            return None if verdict is ACCEPTED else Failed(*verdict, proved)

        return ScramDialogue(method, passwords, self._checks, peer, username, refusal)

    def _proved(self, passwords: Passwords, username: str, client_id: str | None) -> Verdict:
        """The user is who they say, by this password file, which may have been replaced meanwhile."""
        current = self.policy.passwords
        if current is not passwords and (current is None or not current.agrees(passwords, username)):
            return Verdict(ReturnCode.BAD_USER_NAME_OR_PASSWORD, "the password file has changed meanwhile")
        if client_id is None:  # it is in: that it may have this Client Identifier was decided then
            return Verdict(ReturnCode.NOT_AUTHORIZED, _DENIED) if username in self.policy.deny_users else ACCEPTED
        if client_id and not self._permits(client_id):
            return Verdict(ReturnCode.IDENTIFIER_REJECTED, self._why_not(client_id))
        return self._known(username, client_id)

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

    def may_take_over(self, owner: str, username: str | None) -> bool:
        """See core.ports.Gatekeeper. Names are the same if they have the same characters: no case is folded, and no
        two spellings of an accent are made one, as in the password file."""
        name = self.proven_name(username)
        return name == owner or (name is not None and self.policy.allow_user_change)

    @property
    def proves_names(self) -> bool:
        """Is a user name worth anything here?"""
        return self.policy.passwords is not None or self.policy.proof is not None

    def _permits(self, client_id: str) -> bool:
        policy = self.policy
        if len(client_id) > policy.max_client_id:
            return False
        return not policy.client_id_prefixes or client_id.startswith(tuple(policy.client_id_prefixes))

    def _why_not(self, client_id: str) -> str:
        limit = self.policy.max_client_id
        if len(client_id) > limit:
            return f"the Client Identifier is longer than {limit} characters (max_client_id)"
        return "the Client Identifier begins with none of client_id_prefixes"

    def _why_no_proof(self, username: str | None) -> str:
        """Why a certificate does not prove this user name; "" if it does."""
        if self.policy.proof is None:
            return "certificates do not name users here any more (certificate_user)"
        if not username:
            return "the client's certificate names no user (certificate_user)"
        return "" if is_printable_name(username) else "the user name in the client's certificate is not printable"

    def _why_unchecked(self) -> str:
        """Why a user name is worth nothing where there is no password file."""
        if self.policy.proof is not None:
            return "user name not checked: on this listener the client's certificate names the user (certificate_user)"
        return "user name not checked, as this listener has no password file, and allow_anonymous is false"

    def _known(self, username: str | None, client_id: str) -> Verdict:
        """The user is who they say."""
        assert username is not None
        if self._may(username, client_id):
            return ACCEPTED
        denied = username in self.policy.deny_users
        why = _DENIED if denied else "the user may not have this Client Identifier (client_ids)"
        return Verdict(ReturnCode.NOT_AUTHORIZED, why)

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


def _wrong(passwords: Passwords, username: str) -> Verdict:
    """The client hears no more than the code."""
    why = "wrong password" if passwords.knows(username) else "there is no such user in the password file"
    return Verdict(ReturnCode.BAD_USER_NAME_OR_PASSWORD, why)
