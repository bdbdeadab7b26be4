"""Options that several commands share: click gives them one by one, a command takes them as one."""

import functools
from collections.abc import Callable
from dataclasses import fields

Command = Callable[..., None]
Decorator = Callable[[Command], Command]


def gathered(name: str, kind: type, *options: Decorator) -> Decorator:
    """Return a decorator that adds options and hands their values over as one dataclass.

    Args:
        name: the command's argument that takes it.
        kind: a dataclass with a field for each option.
        options: `click.option` or `click.argument`, in the order of `--help`.
    """
    names = [field.name for field in fields(kind)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def taking(**given) -> None:
            value = kind(**{field: given.pop(field) for field in names})
            command(**{name: value}, **given)

        for option in reversed(options):
            taking = option(taking)
        return taking

    return decorate
