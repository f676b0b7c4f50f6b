"""Which settings differ between two configurations: their keys, never their values."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeGuard

from isoproxy.config.schema import Config


def changed_keys(old: Config, new: Config) -> tuple[str, ...]:
    """Dotted keys, sorted; arrays of tables are compared by position."""
    return tuple(sorted(_changed(old, new, "")))


def _changed(old: object, new: object, key: str) -> set[str]:
    if old == new:
        return set()
    if _is_section(old) and _is_section(new):
        keys: set[str] = set()
        for field in fields(old):
            inner = f"{key}.{field.name}" if key else field.name
            keys |= _changed(getattr(old, field.name), getattr(new, field.name), inner)
        return keys
    if _tables(old) and _tables(new) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return set().union(*(_changed(a, b, f"{key}.{index}") for index, (a, b) in pairs))
    return {key}


def _is_section(value: object) -> TypeGuard[Any]:
    """A table of settings; addresses are dataclasses too, and are values."""
    return is_dataclass(value) and any(field.metadata for field in fields(value))


def _tables(value: object) -> TypeGuard[tuple[object, ...]]:
    return isinstance(value, tuple) and bool(value) and _is_section(value[0])
