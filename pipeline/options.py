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

    Raises:
        TypeError: a field has no option.
    """
    names = [field.name for field in fields(kind)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def taking(**given) -> None:
            value = kind(**{field: given.pop(field) for field in names})
            command(**{name: value}, **given)

        for option in reversed(options):
            taking = option(taking)
        given = {parameter.name for parameter in taking.__click_params__}
        if absent := sorted(set(names) - given):
            raise TypeError(
                f"{kind.__name__}: must have an option for each field, got none for {absent}"
            )
        return taking

    return decorate
