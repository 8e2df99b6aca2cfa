"""One Helm template for an object in several variants: the differences become conditions."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

Path = tuple[str, ...]

_END = "{{- end }}"


class _Absent:
    """What a variant does not have."""


ABSENT: Final = _Absent()


@dataclass(frozen=True)
class Template:
    """Writes an object as a template.

    Attributes:
        values: name of the value that replaces a field where it is given, by the field's path.
            Items of lists are in paths by their name.
        texts: what stands in place of a field, whatever the variants have there.
        additions: lines at the end of a mapping, by its path.
    """

    values: Mapping[Path, str] = field(default_factory=dict)
    texts: Mapping[Path, str] = field(default_factory=dict)
    additions: Mapping[Path, str] = field(default_factory=dict)

    def render(self, base: Any, variants: Mapping[str, Any]) -> str:
        """Returns the template.

        Args:
            base: the object without any component; absent if only a variant has it.
            variants: the object with each component on its own, by the component's value;
                absent where the component takes it away.
        """
        lines = "\n".join(self._field((), "", base, variants, 0)).splitlines()
        return "\n".join(_merged(lines)) + "\n"

    def _field(
        self, path: Path, head: str, base: Any, variants: Mapping[str, Any], indent: int
    ) -> Iterator[str]:
        """Yields one field: `head`, then the value, under the conditions of its being there."""
        if path in self.texts:
            yield f"{' ' * indent}{head} {self.texts[path]}"
            return
        there = {name: value for name, value in variants.items() if value is not ABSENT}
        gone = [name for name in variants if name not in there]
        if base is ABSENT:
            if not there:
                return
            yield f"{{{{- if {_any(there)} }}}}"
            first, *others = there.values()
            if all(other == first for other in others):
                yield from self._value(path, head, first, {}, indent)
            else:
                yield from self._value(path, head, type(first)(), there, indent)
            yield _END
            return
        changed = {name: value for name, value in there.items() if value != base}
        if gone:
            yield f"{{{{- if not {_any(gone)} }}}}"
        yield from self._value(path, head, base, changed, indent)
        if gone:
            yield _END

    def _value(
        self, path: Path, head: str, base: Any, variants: Mapping[str, Any], indent: int
    ) -> Iterator[str]:
        everything = [base, *variants.values()]
        if all(isinstance(each, dict) for each in everything) and any(everything):
            if head:
                yield f"{' ' * indent}{head}"
            yield from self._fields(path, base, variants, indent + 2 * bool(head))
        elif all(_is_keyed(each) for each in everything) and any(everything):
            yield f"{' ' * indent}{head}"
            yield from self._items(path, base, variants, indent)
        elif isinstance(base, list) and base and not variants:
            yield f"{' ' * indent}{head}"
            for index, item in enumerate(base):
                yield from _listed(self._value((*path, str(index)), "", item, {}, indent + 2))
        else:
            yield " " * indent + f"{head} {self._scalar(path, base, variants)}".strip()

    def _fields(
        self, path: Path, base: Any, variants: Mapping[str, Any], indent: int
    ) -> Iterator[str]:
        for key in _ordered(base, *variants.values()):
            inner = {name: value.get(key, ABSENT) for name, value in variants.items()}
            yield from self._field(
                (*path, key), f"{_scalar(key)}:", base.get(key, ABSENT), inner, indent
            )
        if path in self.additions:
            yield self.additions[path]

    def _items(
        self, path: Path, base: Any, variants: Mapping[str, Any], indent: int
    ) -> Iterator[str]:
        """Yields the items of a list that have names, each under its own conditions."""
        bases = {_key(item): item for item in base}
        named = {name: {_key(item): item for item in each} for name, each in variants.items()}
        for key in _ordered(bases, *named.values()):
            inner = {name: items.get(key, ABSENT) for name, items in named.items()}
            lines = list(self._field((*path, key), "", bases.get(key, ABSENT), inner, indent + 2))
            first = next(i for i, line in enumerate(lines) if not line.startswith("{{"))
            yield from lines[:first]
            yield from _listed(lines[first:])

    def _scalar(self, path: Path, base: Any, variants: Mapping[str, Any]) -> str:
        if path in self.values:
            otherwise = json.dumps(base)
            for name, value in variants.items():
                otherwise = f"(ternary {json.dumps(value)} {otherwise} {_value_of(name)})"
            return f"{{{{ .Values.{self.values[path]} | default {otherwise} | toJson }}}}"
        text = _scalar(base)
        for name, value in variants.items():
            text = (
                f"{{{{ if {_value_of(name)} }}}}{_scalar(value)}{{{{ else }}}}{text}{{{{ end }}}}"
            )
        return text


def _merged(lines: Iterable[str]) -> list[str]:
    """Joins conditions that follow each other and are the same."""
    merged: list[str] = []
    opened: list[str] = []
    closed = ""
    for line in lines:
        if line == closed and merged[-1] == _END:
            merged.pop()
            opened.append(line)
        else:
            merged.append(line)
            if line.startswith(("{{- if", "{{- range", "{{- with")):
                opened.append(line)
        closed = opened.pop() if line == _END else ""
    return merged


def _any(names: Iterable[str]) -> str:
    values = [_value_of(name) for name in names]
    return values[0] if len(values) == 1 else f"(or {' '.join(values)})"


def _value_of(component: str) -> str:
    return f".Values.components.{component}"


def _ordered(*mappings: Mapping[str, Any]) -> Iterator[str]:
    """Yields all keys, in the order in which they appear first, names before the rest."""
    keys = list(dict.fromkeys(key for mapping in mappings for key in mapping))
    yield from sorted(keys, key=lambda key: key not in ("name", "mountPath"))


def _key(item: Any) -> str:
    return str(item.get("mountPath") or item["name"])


def _is_keyed(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict) and ("mountPath" in item or "name" in item) for item in value
    )


def _listed(lines: Iterable[str]) -> Iterator[str]:
    """Makes lines of a field the lines of an item."""
    first, *others = lines
    indent = len(first) - len(first.lstrip())
    yield f"{' ' * (indent - 2)}- {first.lstrip()}"
    yield from others


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
