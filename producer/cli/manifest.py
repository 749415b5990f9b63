"""Reads files of wishes: YAML or JSON, one document or many, each {noun, name, spec}. Nothing in them is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ...models import nouns
from ...models.errors import Invalid
from .given import read_text, source

#: A file of wishes is never larger, in bytes.
MAX_BYTES = 4 * 1024 * 1024
#: Lists and mappings stand in one another at most this deep.
MAX_DEPTH = 20
KEYS = ("noun", "name", "spec")


@dataclass(frozen=True)
class Document:
    """One resource as a file wants it."""

    noun: str
    name: str
    spec: Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML as far as JSON goes: no aliases (they multiply), no key twice, no dates."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise Invalid("aliases (*name) are not taken", hint="write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise Invalid(f"key {twice!r} stands twice in one place")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path: str) -> list[Document]:
    """The documents of a file, `-` for standard input. Raises Invalid, or NotFound for an unknown noun."""
    text = read_text(path, MAX_BYTES)
    path = source(path)
    try:
        loaded = _load(text)
    except Invalid as error:
        raise Invalid(f"{path}: {error.what}", hint=error.hint) from None
    except RecursionError:
        raise Invalid(f"{path}: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Invalid(f"{path} is neither YAML nor JSON: {error}") from None
    found = [_document(each, f"{path}: document {number}") for number, each in enumerate(loaded, 1)]
    if not found:
        raise Invalid(f"{path} holds no document", hint="{noun: account, name: alice, spec: {...}}")
    seen: set[tuple[str, str]] = set()
    for each in found:
        if (each.noun, each.name) in seen:
            raise Invalid(f"{path}: {each.noun} {each.name} stands twice in it")
        seen.add((each.noun, each.name))
    return found


def _load(text: str) -> list[Any]:
    """Every document; a list at the top is a list of documents."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            loaded = [json.loads(text, object_pairs_hook=_once)]
        except json.JSONDecodeError:
            # YAML's flow style begins in the same way.
            loaded = list(yaml.load_all(text, _Loader))
    else:
        loaded = list(yaml.load_all(text, _Loader))
    return [each for top in loaded if top is not None for each in (top if isinstance(top, list) else [top])]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Invalid(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one place")
    return found


def _document(given: Any, where: str) -> Document:
    if not isinstance(given, dict) or set(given) - set(KEYS) or not {"noun", "name"} <= set(given):
        raise Invalid(f"{where} must be a mapping of noun, name and spec", hint="onehost get account -o yaml")
    noun, name, spec = given["noun"], given["name"], given.get("spec", {})
    if not isinstance(noun, str) or not isinstance(name, str) or not isinstance(spec, dict):
        raise Invalid(f"{where}: noun and name must be text, spec a mapping")
    if problem := next(_problems(spec, "spec", 1), None):
        raise Invalid(f"{where}: {problem}")
    known = nouns.noun(noun.replace("-", "_"))
    return Document(known.name, known.check_name(name), spec)


def _problems(value: Any, path: str, depth: int) -> Iterator[str]:
    """What of a value cannot be kept as JSON."""
    if depth > MAX_DEPTH:
        yield f"{path[:60]} is nested too deeply"
    elif isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                yield f"{path}: the key {key!r} is not text"
            yield from _problems(key, f"{path} key", depth) if isinstance(key, str) else ()
            yield from _problems(each, f"{path}.{key}", depth + 1)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _problems(each, f"{path}.{number}", depth + 1)
    elif isinstance(value, str):
        if any(0xD800 <= ord(char) <= 0xDFFF or char == "\0" for char in value):
            yield f"{path} holds characters that are no text"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is not a number"
    elif isinstance(value, int) and abs(value) >= 1 << 63:
        yield f"{path} is too large a number"
    elif value is not None and not isinstance(value, (int, float)):
        yield f"{path} is of a kind that JSON does not have ({type(value).__name__})"
