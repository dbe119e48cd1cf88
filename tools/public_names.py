"""The public names and the defaults of their arguments, as `make release` records them."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import sys

MODULES = ("wtio", "wtio.asgi", "wtio.hub", "wtio.testing")


def public_names() -> dict[str, str]:
    """Every public function, class, method and argument by its full name, with the default of an argument or ''."""
    names: dict[str, str] = {}
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            _add(f"{module.__name__}.{name}", getattr(module, name), names)
    return dict(sorted(names.items()))


def _add(path: str, thing: object, names: dict[str, str]) -> None:
    names[path] = ""
    if inspect.isclass(thing):
        if issubclass(thing, enum.Enum):
            names.update({f"{path}.{member}": "" for member in thing.__members__})
            return
        if dataclasses.is_dataclass(thing):
            for field in dataclasses.fields(thing):
                if field.init and not field.name.startswith("_"):
                    empty = field.default is dataclasses.MISSING
                    names[f"{path}.{field.name}"] = "" if empty else _shown(field.default)
        else:
            _add_arguments(path, thing, names)
        for name, member in vars(thing).items():
            if not name.startswith("_"):
                names.setdefault(f"{path}.{name}", "")
                if callable(member):
                    _add_arguments(f"{path}.{name}", member, names)
    elif callable(thing):
        _add_arguments(path, thing, names)


def _add_arguments(path: str, thing: object, names: dict[str, str]) -> None:
    try:
        signature = inspect.signature(thing)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    for parameter in signature.parameters.values():
        if parameter.name != "self" and not parameter.name.startswith("_"):
            empty = parameter.default is inspect.Parameter.empty
            names[f"{path}({parameter.name})"] = "" if empty else _shown(parameter.default)


def _shown(default: object) -> str:
    # The address of an object is another one in each run.
    return f"<{type(default).__name__}>" if " at 0x" in repr(default) else repr(default)


if __name__ == "__main__":
    json.dump(public_names(), sys.stdout, indent=1)
    print()
