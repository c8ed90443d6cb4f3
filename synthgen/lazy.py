"""Public names of a package that load their module when first used, so that importing the package stays cheap."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def publish(package: str, homes: dict[str, str]) -> None:
    """Let `package` offer each name of `homes` from the submodule given for it.

    A submodule of the same name as a function (`synthgen.generate`) stays importable and never hides it.
    """

    class Package(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module '{package}' has no attribute '{name}'")
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
            self.__dict__[name] = value
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            if not (name in homes and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *homes})

    sys.modules[package].__class__ = Package
