"""The `passwd` command: set or delete a user's password in a password file.

Owns: its arguments, its questions and its exit codes. Must not know: the file's format (that is passwords.py).
"""

import argparse
import getpass
import sys
import warnings

from ..auth import passwords, scram
from ..auth.errors import FileError
from .arguments import Parser

DONE, REFUSED = 0, 1

#: By method of SCRAM.
_FLAG_OF = {method: method.lower().removeprefix("scram-") for method in scram.DIGESTS}

#: What is typed here out of habit.
_MOSQUITTO = {
    "-b": "here it is --batch PASSWORD, or better --stdin",
    "-c": "it is not needed here: a missing file is created, and an existing one is never emptied",
    "-D": "here it is --delete",
    "-H": "it is not needed here: what is written is $7$ (PBKDF2-HMAC-SHA512); for SCRAM, it is --scram",
    "-I": "here it is --iterations",
    "-U": "there is none here: set the password of each user whose line has a plain one",
}


def run(argv: list[str], prog: str) -> int:
    """The exit code: 0 done; 1 refused, and the file is as it was; 2 wrong arguments.

    Says what it did on standard output, and what went wrong on standard error.
    """
    parser = _parser(prog)
    for flag in argv:
        if flag in _MOSQUITTO:
            parser.error(f"{flag}: a flag of mosquitto_passwd; {_MOSQUITTO[flag]}")
    arguments = parser.parse_args(argv)
    path, user = arguments.file, arguments.user
    try:
        if arguments.delete:
            passwords.delete_user(path, user)
            _say(f"{path}: deleted user {user!r}")
        else:
            method = arguments.scram
            fault = passwords.user_fault(user) or (method and passwords.scram_user_fault(user))
            if fault:  # before anybody types a password for nothing
                raise FileError(path, None, fault)
            password = _password(arguments, user)
            before = passwords.scram_method(path, user)
            new = passwords.set_password(
                path, user, password, create=True, iterations=arguments.iterations, method=method
            )
            _say(f"{path}: {'added' if new else 'changed the password of'} user {user!r}")
            if before is not None and method != before:
                lost = f"{user!r} cannot log in with {before} any more"
                again = f"if that is a mistake, run this again with --scram {_FLAG_OF[before]}"
                print(f"{prog}: warning: {lost}; {again}", file=sys.stderr)
    except (FileError, _Refusal) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return REFUSED
    except (KeyboardInterrupt, EOFError):
        print(f"\n{prog}: stopped", file=sys.stderr)
        return REFUSED
    try:
        passwords.Passwords.read(path)
    except FileError as error:  # on another line, or this command would have refused
        print(f"{prog}: warning: the broker will not accept this file yet: {error}", file=sys.stderr)
    return DONE


class _Refusal(Exception):
    """There is no password to set. `str()` says why, and what to do."""


def _parser(prog: str) -> Parser:
    description = (
        "Set the password of USER in FILE. The command asks for the password twice. It creates FILE if there is none, "
        "and changes nothing if FILE is not a password file."
    )
    parser = Parser(prog, description)
    parser.add_argument("file", metavar="FILE", help="the password file; it has the same format as Mosquitto's")
    parser.add_argument("user", metavar="USER", help="the user's name")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--delete", action="store_true", help="remove USER from FILE instead")
    how.add_argument("--stdin", action="store_true", help="read the password, one line, from standard input")
    how.add_argument(
        "--batch",
        metavar="PASSWORD",
        help="take the password from the command line, where everybody on this machine can see it in the process list",
    )
    parser.add_argument(
        "--scram",
        metavar="DIGEST",
        type=_method,
        help="let USER log in with SCRAM, too, which never sends the password: sha-256, which most clients know, or "
        "sha-512. MQTT 5.0 clients call it the authentication method SCRAM-SHA-256 or SCRAM-SHA-512",
    )
    parser.add_argument(
        "--iterations",
        metavar="N",
        type=int,
        help="rounds of hashing: more of them slow down both guessing and each login; with SCRAM, the client computes "
        f"them (default: {passwords.ITERATIONS}; {scram.ITERATIONS['SCRAM-SHA-256']} with --scram sha-256)",
    )
    return parser


def _method(text: str) -> str:
    for method, flag in _FLAG_OF.items():
        if text.lower() in (flag, method.lower()):
            return method
    raise argparse.ArgumentTypeError(f"{text!r} is neither {' nor '.join(_FLAG_OF.values())}")


def _password(arguments: argparse.Namespace, user: str) -> bytes:
    """The new password, as the bytes that a CONNECT will carry. Raises _Refusal."""
    if arguments.batch is not None:
        print("warning: --batch shows the password in the process list and in the shell's history; --stdin does not",
              file=sys.stderr)  # fmt: skip
        return _encoded(arguments.batch)
    if arguments.stdin:
        if sys.stdin is None:  # closed by the shell
            raise _Refusal("standard input is closed: give the password on it")
        # One byte more than a line can have, so that an endless input is told from a password.
        line = sys.stdin.buffer.read(passwords.MAX_BYTES + 3).removesuffix(b"\n").removesuffix(b"\r")
        if b"\n" in line:
            raise _Refusal("standard input has more than one line: give the password on one")
        return line
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            password = getpass.getpass(f"New password for {user}: ")
            again = getpass.getpass(f"Once more, for {user}: ")
        except getpass.GetPassWarning:
            raise _Refusal("there is no terminal to ask for the password on: use --stdin") from None
    if password != again:
        raise _Refusal("the two passwords differ: nothing was changed, try again")
    return _encoded(password)


def _say(text: str) -> None:
    """Print to standard output, which may not be able to show every path."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogateescape")  # what was not UTF-8 when it was typed stays what it was
