"""A mistake in a configuration, and all of them.

Owns: the error that the users of a configuration see. Must not know: what can be wrong.
"""


class ConfigError(ValueError):
    """A mistake in the configuration; str() is one line that says where it is, what is wrong and what to do.

    `others` are the further ones that the same reading has found.
    """

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))
        self.others: tuple[ConfigError, ...] = ()

    @property
    def all(self) -> tuple["ConfigError", ...]:
        return self, *self.others


class Mistakes(list[ConfigError]):
    """Those found so far. `with mistakes:` notes one that is raised, so that it does not hide the next."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, ConfigError):
            return False
        self.append(error)
        return True

    def tell(self) -> None:
        """Raise the first, which knows the others, if there is any."""
        if self:
            first, *others = self
            first.others = tuple(others)
            raise first
