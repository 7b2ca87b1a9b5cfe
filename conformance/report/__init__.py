"""Reports of a run: for the terminal, JSON, JUnit and HTML, all from the one model in `result`.

Must not know: sockets, pytest, how a verdict was reached.
"""
