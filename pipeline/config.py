"""Typed configuration: frozen dataclasses, `--set a.b=value` overrides, a hash of the content."""

import dataclasses
import difflib
import types
import typing
from typing import Any, TypeVar

import orjson

from pipeline.errors import UserError
from pipeline.files import sha256

C = TypeVar("C")


def to_plain(config: Any) -> dict[str, Any]:
    """Return the config as nested dicts, lists, numbers and strings, ready for JSON."""
    return orjson.loads(orjson.dumps(dataclasses.asdict(config)))


def config_hash(config: Any) -> str:
    """Return a hash of a config dataclass or of a plain dict: equal content, equal hash."""
    plain = to_plain(config) if dataclasses.is_dataclass(config) else config
    return sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS))[:16]


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Return one line 'a.b: old -> new' for every leaf in which two plain configs differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted(old.keys() | new.keys()):
            lines += differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        return lines
    return [] if old == new else [f"{where}: {old} -> {new}"]


def override(config: C, assignments: typing.Iterable[str]) -> C:
    """Return the config with `key.sub=value` assignments applied, each typed by its field.

    Args:
        config: a frozen dataclass, possibly nested.
        assignments: strings as given to --set.

    Raises:
        UserError: no '=', an unknown key (names the nearest), a value of another type, or values
            that do not go together.
    """
    changes = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(
                f"--set {assignment}: must be key=value, got no '='; write --set {key}=VALUE"
            )
        changes[tuple(key.split("."))] = _value_of(config, key, text)
    return _changed(config, changes, "")


def _value_of(config: Any, key: str, text: str) -> Any:
    """Return a text as the type of the field that a key leads to."""
    *above, name = key.split(".")
    for part in above:
        _check_known(config, key, part)
        config = getattr(config, part)
        if not dataclasses.is_dataclass(config):
            raise UserError(f"--set {key}: '{part}' has no keys below it; write --set {part}=VALUE")
    _check_known(config, key, name)
    hint = typing.get_type_hints(type(config))[name]
    try:
        return _parse(text, hint)
    except ValueError:
        raise UserError(
            f"--set {key}: must be {_expected(hint)}, got '{text}'; give such a value"
        ) from None


def _check_known(config: Any, key: str, name: str) -> None:
    hints = typing.get_type_hints(type(config))
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        keys = f"keys here: {', '.join(hints)}" if hints else "there is nothing to set here"
        raise UserError(f"--set {key}: unknown key '{name}'; {hint}{keys}")


def _changed(config: C, changes: dict[tuple[str, ...], Any], where: str) -> C:
    """Return the config with all values changed at once, so that their order does not matter."""
    values = {path[0]: value for path, value in changes.items() if len(path) == 1}
    for name in dict.fromkeys(path[0] for path in changes if len(path) > 1):
        below = {p[1:]: v for p, v in changes.items() if p[0] == name and len(p) > 1}
        values[name] = _changed(getattr(config, name), below, f"{where}{name}.")
    try:
        return dataclasses.replace(config, **values)
    except ValueError as error:  # a range check in the dataclass's own __post_init__
        keys = ", ".join(f"{where}{name}" for name in values)
        raise UserError(f"--set {keys}: {error}") from error


def _expected(hint: Any) -> str:
    """Return what a field takes, in words: its type, or the values to choose from."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return getattr(hint, "__name__", str(hint))


def _parse(text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        return _parse(text, next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        items = [item for item in text.strip("()[] ").split(",") if item.strip()]
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_parse(item.strip(), arguments[0]) for item in items)
        if len(items) != len(arguments):
            raise ValueError(text)
        return tuple(_parse(item.strip(), a) for item, a in zip(items, arguments, strict=True))
    if origin is typing.Literal:
        if text not in arguments:
            raise ValueError(text)
        return text
    if hint is bool:
        return (
            {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
            if text.lower() in {"true", "1", "yes", "false", "0", "no"}
            else _refuse(text)
        )
    if hint in (int, float, str):
        return hint(text)
    raise ValueError(text)


def _refuse(text: str) -> Any:
    raise ValueError(text)
