"""A typed table from name to component, open to other packages."""

import difflib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from unsee.errors import ConfigError

T = TypeVar("T")
Component = TypeVar("Component")


def nearest(name: str, names: list[str]) -> str:
    """The close of an error message: the nearest of `names`, or else all of them.

    Args:
        name: What the user wrote.
        names: What there is.

    Returns:
        For example `"did you mean 'vkd'?"` or `"known: grad_diff, vkd"`.
    """
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names) or 'none'}"


class Registry(Generic[T]):
    """Components of one kind by name.

    Our own modules call `register` when they are imported. Other packages declare an entry point;
    these are looked up by name only when a name is missing, so nothing is imported unasked.

    Args:
        kind: What the components are, in the singular, for messages.
        entry_point_group: Where other packages may add to the table.
    """

    def __init__(self, kind: str, entry_point_group: str | None = None) -> None:
        self.kind = kind
        self.entry_point_group = entry_point_group
        self._table: dict[str, T] = {}

    def register(self, name: str) -> Callable[[Component], Component]:
        """A decorator that adds what it decorates, and returns it unchanged.

        Raises:
            ConfigError: If the name is taken.
        """

        def add(component: Component) -> Component:
            if name in self._table:
                raise ConfigError(
                    f"{self.kind} {name!r} is registered twice; choose another name "
                    f"(it belongs to {self._table[name]!r})"
                )
            self._table[name] = component  # pyright: ignore[reportArgumentType]
            return component

        return add

    def get(self, name: str) -> T:
        """The component called `name`.

        Raises:
            ConfigError: If there is none; the message offers the nearest name.
        """
        if name not in self._table:
            self._load_entry_point(name)
        if name not in self._table:
            raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(name, self.names())}")
        return self._table[name]

    def names(self) -> list[str]:
        """All names in alphabetical order, entry points included but not imported."""
        return sorted({*self._table, *(point.name for point in self._entry_points())})

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and components in alphabetical order, entry points imported."""
        return ((name, self.get(name)) for name in self.names())

    def _entry_points(self):
        if self.entry_point_group is None:
            return ()
        return entry_points(group=self.entry_point_group)

    def _load_entry_point(self, name: str) -> None:
        for point in self._entry_points():
            if point.name == name:
                component = point.load()
                self._table.setdefault(name, component)
