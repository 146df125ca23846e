"""Turn TOML text into a frozen msgspec tree, with errors that name the key and its nearest kin.

`iot.toml` and `policy.toml` both pass through here, so that a typing error reads the same in
both: file, key, and the name that was probably meant.
"""

from __future__ import annotations

import difflib
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from broker_config.errors import ConfigurationError

T = TypeVar("T", bound=msgspec.Struct)


def parse_toml(text: str, *, where: str, error: type[ConfigurationError]) -> dict[str, Any]:
    """The tree of a TOML text.

    Raises:
        error: with the line and column, when `text` is not TOML 1.0.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        raise error(f"{where} is not valid TOML", f"{exc}") from None


def convert_tree(
    tree: Mapping[str, Any],
    shape: type[T],
    *,
    where: str,
    error: type[ConfigurationError],
    dec_hook: Callable[[type, Any], Any] | None = None,
) -> T:
    """`tree` as a `shape`.

    Args:
        where: the file the tree came from, for the message.
        error: the leaf of the error tree to raise.

    Raises:
        error: for an unknown key (with the nearest known name) or a value of the wrong type.
    """
    problem = unknown_key(tree, shape)
    if problem is not None:
        raise error(f"{where}: {problem}")
    try:
        return msgspec.convert(tree, shape, dec_hook=dec_hook)
    except msgspec.ValidationError as exc:
        sentence = str(exc).replace(" - at `$.", " in `")
        for key in _unnamed_keys(tree, shape, dec_hook):
            sentence = sentence.replace("[...]", f".{key}", 1)
        raise error(f"{where}: {sentence}") from None


def _unnamed_keys(
    tree: Mapping[str, Any],
    shape: type[msgspec.Struct],
    dec_hook: Callable[[type, Any], Any] | None,
) -> list[str]:
    """The keys of free-named tables on the way to the first wrong value.

    msgspec writes `[...]` for them; which ones they are is found by converting each by itself.
    """
    for key, hint in get_type_hints(shape).items():
        value = tree.get(key)
        if get_origin(hint) is not dict or not isinstance(value, dict):
            continue
        for name, item in value.items():
            try:
                msgspec.convert({name: item}, hint, dec_hook=dec_hook)
            except msgspec.ValidationError:
                return [name]
    return []


def unknown_key(tree: Mapping[str, Any], shape: type[msgspec.Struct], at: str = "") -> str | None:
    """A sentence about the first key of `tree` that `shape` does not know, or None."""
    hints = get_type_hints(shape)
    for key, value in tree.items():
        path = f"{at}{key}"
        if key not in hints:
            return f"unknown key {path}{nearest(key, hints)}"
        for inner, sub_path, sub_tree in _sub_trees(hints[key], path, value):
            problem = unknown_key(sub_tree, inner, f"{sub_path}.")
            if problem is not None:
                return problem
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """`, did you mean X?` for the closest known name, or the list of the known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]}?"
    return f" (known: {', '.join(names)})"


def _sub_trees(
    hint: Any, path: str, value: Any
) -> list[tuple[type[msgspec.Struct], str, Mapping[str, Any]]]:
    """The structs that stand below one key: itself, the values of a table, a list's items."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [(hint, path, value)] if isinstance(value, dict) else []
    inner = get_args(hint)[-1:] if get_origin(hint) in (dict, tuple, list) else ()
    if get_origin(hint) is tuple and get_args(hint)[-1:] == (...,):
        inner = get_args(hint)[:1]
    if not inner or not (isinstance(inner[0], type) and issubclass(inner[0], msgspec.Struct)):
        return []
    if isinstance(value, dict):
        items = [(f"{path}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(f"{path}[{position}]", item) for position, item in enumerate(value)]
    else:
        return []
    return [(inner[0], where, item) for where, item in items if isinstance(item, dict)]
