"""Write a tree as TOML 1.0, plainly or in any of the many ways that mean the same."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

_COMMENTS = ("", "# a comment", '# key = "no key"', "\t# [no.table]")


def toml_text(tree: Mapping[str, Any], variation: Random | None = None) -> str:
    """The TOML text of a tree; with `variation`, in another order, spacing and commenting.

    The order of a list is part of its value, so it stays.
    """
    return "\n".join(_table(tree, (), variation)) + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...], variation: Random | None) -> list[str]:
    lines: list[str] = []
    values = [item for item in table.items() if not _is_table(item[1])]
    tables = [item for item in table.items() if _is_table(item[1])]
    if variation is not None:
        variation.shuffle(values)
        variation.shuffle(tables)
    for key, value in values:
        lines += _line(f"{key} = {_value(value)}", f"{key}={_value(value)}", variation)
    for key, value in tables:
        inner = (*path, key)
        header = ".".join(inner)
        for item in value if isinstance(value, list) else [None]:
            name, one = (f"[{header}]", value) if item is None else (f"[[{header}]]", item)
            lines += _line(name, f"  {name} ", variation)
            lines += _table(one, inner, variation)
    return lines


def _line(plain: str, other: str, variation: Random | None) -> list[str]:
    if variation is None:
        return [plain]
    text = variation.choice([plain, other, f" \t{plain}  "])
    before = [variation.choice(_COMMENTS) for _ in range(variation.randrange(3))]
    return [*before, f"{text} {variation.choice(_COMMENTS)}"]


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return repr(value)
