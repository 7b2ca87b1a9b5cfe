"""The `convert` command: print a mosquitto.conf as a configuration file of ours.

Owns: its arguments, where its words go, and its exit codes. Must not know: what either file means (`config.mosquitto`
reads the one, `config.conversion` makes the other).
"""

import os
import sys

from ..config.conversion import convert, remarks
from ..config.mosquitto import NotMosquitto, read
from .arguments import Parser

DONE, WRONG = 0, 2


def run(argv: list[str], prog: str) -> int:
    """The exit code: 0 done; 2 wrong arguments, or no mosquitto.conf.

    The file goes to standard output, with a comment for each line that has no counterpart; standard error gets those
    of which something is lost.
    """
    parser = Parser(prog, "Print a mosquitto.conf as a configuration file for this broker.",
                    f"For example: {prog} /etc/mosquitto/mosquitto.conf > selectmq.toml")  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="a mosquitto.conf of Mosquitto 2")
    parser.add_argument(
        "--directory", metavar="DIR", default=".",
        help="the directory in which Mosquitto was started, where relative paths in FILE begin (default: the current "
        "directory; Debian's service starts it in /)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    directory = os.path.abspath(arguments.directory)
    try:
        conf = read(arguments.file, directory)
        blocks = convert(conf, directory)
    except NotMosquitto as error:
        print(f"{prog}: {_printable(str(error))}", file=sys.stderr)
        return WRONG
    program = prog.rpartition(" ")[0]
    head = f"# From {arguments.file}, by `{prog}`; to check it: {program} -c FILE --check\n"
    text = "\n".join([_printable(head.rstrip()) + "\n", *filter(None, (block.toml() for block in blocks))])
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())  # TOML is UTF-8, whatever the terminal is
    sys.stdout.buffer.flush()
    told = [remark for remark in remarks(blocks) if not remark.needless]
    for text in dict.fromkeys(map(str, told)):  # what holds for all listeners is said once
        print(text, file=sys.stderr)
    whole = sum(1 for _ in conf.lines())
    lines = {line for remark in told for line in remark.lines}
    print(f"{prog}: {whole} options, {len(lines)} with a remark: see the comments in what was printed", file=sys.stderr)
    return DONE


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
