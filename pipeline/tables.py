"""Lazy tables: a name points to a module that is imported only when asked for.

A missing optional package hurts only the entry that needs it, and the error says what installs it.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from pipeline.errors import UserError, unknown_name


@dataclass(frozen=True)
class Table:
    """Names of one kind ('superpixel source', 'loss') and the modules that hold them."""

    kind: str
    modules: dict[str, str]  # name -> dotted module
    install: dict[str, str]  # name -> what to do where its import fails

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self.modules)

    def load(self, name: str) -> ModuleType:
        """Return the module of `name`.

        Raises:
            UserError: unknown name (lists the valid ones), or a package it needs is not installed.
        """
        if name not in self.modules:
            raise unknown_name(self.kind, name, self.modules)
        try:
            return importlib.import_module(self.modules[name])
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] in {"pipeline", "train", "eval"}:
                raise
            advice = self.install.get(name, f"install the package '{error.name}'")
            raise UserError(
                f"{self.kind} '{name}': package '{error.name}' is not installed; {advice}"
            ) from error

    def problem(self, name: str) -> str | None:
        """Return why `name` cannot be loaded here, or None where it can (for doctor)."""
        try:
            self.load(name)
        except UserError as error:
            return str(error)
        return None
