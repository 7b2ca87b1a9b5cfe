"""One client's authentication by SCRAM, from its first message to the answer.

Owns: the order of the steps, and that a guess costs as much as one by CONNECT. Must not know: the messages (scram),
AUTH packets, connections, who may connect.

Only the last step is work for `checks`: there, addresses take turns. It computes next to nothing, as the client has
done all of the hashing; and with the salt, which everybody is told, a dictionary can be hashed in advance. So a wrong
proof keeps its thread for as long as a wrong password would.
"""

import time
from collections.abc import Callable
from typing import Any

from ..core.ports import Challenge, Failed, GiveUp, Outcome, Proved
from ..wire.codes import ReturnCode
from .checks import Checks
from .passwords import Passwords
from .scram import Conversation

#: Seconds that a wrong proof costs.
PENALTY = 0.2

_BEGUN, _ASKED, _CHALLENGED, _OVER = range(4)


class ScramDialogue:
    """Implements core.ports.Dialogue."""

    __slots__ = ("_checks", "_conversation", "_expected", "_method", "_passwords", "_peer", "_refusal", "_state",
                 "_username")  # fmt: skip

    def __init__(
        self,
        method: str,
        passwords: Passwords,
        checks: Checks,
        peer: str,
        expected: str | None,
        refusal: Callable[[str], Failed | None],
    ) -> None:
        """`expected`: the user that it has to be. `refusal` says, of one who has proved to be it, why the user may
        not connect."""
        self._method = method
        self._passwords = passwords
        self._checks = checks
        self._peer = peer
        self._expected = expected
        self._refusal = refusal
        self._conversation = Conversation()
        self._state = _BEGUN
        self._username: str | None = None

    def step(self, data: bytes, decided: Callable[[Outcome], None]) -> Outcome | GiveUp:
        """See core.ports.Dialogue."""
        state, self._state = self._state, _OVER
        if state == _BEGUN and not data:
            self._state = _ASKED
            return Challenge(b"")  # its first message was not in the packet that asked for this: it is to send it
        try:
            if state == _CHALLENGED:
                return self._prove(data, decided)
            if state in (_BEGUN, _ASKED):
                return self._challenge(data)
        except ValueError as error:
            return self._failed(ReturnCode.NOT_AUTHORIZED, f"{self._method}: {error}")
        return self._failed(ReturnCode.NOT_AUTHORIZED, f"{self._method}: a message that nothing had asked for")

    def _challenge(self, message: bytes) -> Outcome:
        username = self._username = self._conversation.first(message)
        if self._expected is not None and username != self._expected:
            why = f"{self._method} is for another user than the connection, which is {self._expected!r}'s"
            return self._failed(ReturnCode.NOT_AUTHORIZED, why)
        self._state = _CHALLENGED
        return Challenge(self._conversation.challenge(self._passwords.keys(self._method, username)))

    def _prove(self, message: bytes, decided: Callable[[Outcome], None]) -> Outcome | GiveUp:
        conversation = self._conversation
        conversation.final(message)

        def check() -> bytes | None:
            answer = conversation.answer()
            if answer is None:
                time.sleep(PENALTY)
            return answer

        def checked(answer: Any, error: Exception | None) -> None:
            if error is not None:
                raise error  # a bug: told as one by the loop
            decided(self._wrong() if answer is None else self._right(answer))

        question = self._checks.submit(self, check, checked, self._peer, len(message))
        if question is None:
            why = "too many passwords from this address wait to be checked"
            return self._failed(ReturnCode.SERVER_UNAVAILABLE, why)
        return question.cancel

    def _right(self, answer: bytes) -> Outcome:
        assert self._username is not None
        return self._refusal(self._username) or Proved(self._username, answer)

    def _wrong(self) -> Failed:
        passwords, username, method = self._passwords, self._username or "", self._method
        if not passwords.knows(username):
            why = "there is no such user in the password file"
        elif not passwords.has_keys(method, username):
            flag = method.lower().removeprefix("scram-")
            why = f"the user has no password for {method} (passwd --scram {flag})"
        else:
            why = "wrong password"
        return self._failed(ReturnCode.BAD_USER_NAME_OR_PASSWORD, why)

    def _failed(self, code: ReturnCode, why: str) -> Failed:
        return Failed(code, why, self._username)
