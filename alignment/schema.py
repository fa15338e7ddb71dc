"""Strict words: YAML in, a frozen, checked object out; shared by recipes, data cards and hardware profiles.

A key stands only once, `5e-6` is a number, a number is neither text nor yes, and infinity is none. `--set a.b=c` edits
the same mapping. Every complaint names file, dotted field and, for a typo, the nearest field.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from alignment.errors import PlumblineError, RecipeError

ROUNDED = 0.02  # so far from 1 may shares add up that were written rounded, as three times 0.33


def whole(shares: dict[Any, float]) -> dict[Any, float]:
    """Refuse shares that are not those of a whole; none at all are unset."""
    if shares and abs(sum(shares.values()) - 1) > ROUNDED:
        raise ValueError(f"must add up to 1, and these to {sum(shares.values()):g}")
    return shares


Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[dict[str, Share], AfterValidator(whole)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]  # a run beside this one, a card, a template


class Words(BaseModel):
    """A section of a file: unknown words are refused, nothing is converted, nothing changes after loading."""

    LATER: ClassVar[tuple[str, ...]] = ()  # words that came later: unset, they leave a fingerprint as it was

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _asked_for(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        unset = {name for name in self.LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in write(self).items() if name not in unset}

    @model_validator(mode="before")
    @classmethod
    def _sequences(cls, raw: Any) -> Any:
        """YAML's lists become the tuples of a frozen object."""
        return {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()} if isinstance(raw, dict) else raw


Section = TypeVar("Section", bound=Words)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `5e-6` is a number and a key may stand only once."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(_\d+)*)?\.?\d+[eE][-+]?\d+$"), list("-+0123456789.")
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise RecipeError(f"line {key_node.start_mark.line + 1}: {key!r} cannot be a field's name. Write a word.")
        if key in seen:
            raise RecipeError(f"line {key_node.start_mark.line + 1}: {key!r} stands twice. Keep one.")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str, where: str) -> Any:
    """Read strict YAML; `where` names the source in a complaint."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecipeError as error:
        raise RecipeError(f"{where}, {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "the text is not YAML"
        raise RecipeError(f"{where}:{line} {problem}. Mend the YAML.") from None
    except (ValueError, RecursionError) as error:  # a date that no calendar has, a number that is none
        raise RecipeError(f"{where}: {error}. Mend the YAML, or put quotes around what is text.") from None


def edit(raw: dict[str, Any], edits: Iterable[str], where: str) -> dict[str, Any]:
    """Apply `a.b=c` edits to a raw mapping and return the edited copy; the value is read as YAML."""
    for change in edits:
        field, equals, text = change.partition("=")
        keys = field.split(".")
        if not equals or not all(keys):
            raise RecipeError(f"--set {change}: write --set field=value, or --set section.field=value.")
        value = parse(text, f"--set {field}")
        raw = _replaced(raw, keys, value, where, field)
    return raw


def _replaced(raw: Any, keys: list[str], value: Any, where: str, field: str) -> Any:
    if isinstance(raw, list):
        if not keys[0].isdigit() or int(keys[0]) >= len(raw):
            raise RecipeError(f"{where}: --set {field}: {keys[0]!r} is not an item of a list of {len(raw)}.")
        items = list(raw)
        items[int(keys[0])] = _replaced(raw[int(keys[0])], keys[1:], value, where, field) if keys[1:] else value
        return items
    if not isinstance(raw, dict):
        raise RecipeError(f"{where}: --set {field}: the part before .{keys[0]} is a value, not a section.")
    inner = _replaced(raw.get(keys[0], {}), keys[1:], value, where, field) if keys[1:] else value
    return {**raw, keys[0]: inner}


def validate(section: type[Section], raw: Any, where: str, error: type[PlumblineError] = RecipeError) -> Section:
    """Check a raw mapping against a schema; raises `error` with a line for every fault."""
    try:
        return section.model_validate(raw)
    except ValidationError as found:
        raise error("\n".join(_complaint(where, section, issue) for issue in _deepest(found.errors()))) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """Name what a mistyped word may mean, or everything that is known."""
    known = list(known)
    near = get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."


def _deepest(issues: Iterable[Any]) -> list[Any]:
    """Of a field that may be one of several things, keep the faults of what it comes nearest to; drop the ways' names."""
    kept: dict[tuple[Any, ...], list[Any]] = {}
    for issue in issues:
        loc = issue["loc"]
        way = next((i for i, part in enumerate(loc) if isinstance(part, str) and "[" in part), None)
        field = loc if way is None else loc[:way]
        place = tuple(part for part in loc if not (isinstance(part, str) and "[" in part))
        kept.setdefault(field, []).append({**issue, "loc": place})
    return [
        issue for found in kept.values() for issue in found if len(issue["loc"]) == max(len(one["loc"]) for one in found)
    ]


def _complaint(where: str, section: type[Words], issue: Any) -> str:
    parts = [str(part) for part in issue["loc"]]
    place = f"{where}: {'.'.join(parts)}: " if parts else f"{where}: "
    if issue["type"] == "extra_forbidden":
        return f"{place}unknown field. {nearest(parts[-1], _fields(section, parts[:-1]))}"
    if issue["type"] == "missing":
        return f"{place}missing, and it is needed."
    message = issue["msg"].removeprefix("Value error, ")
    given = "" if isinstance(issue["input"], dict | list | tuple | Words) else f", not {issue['input']!r}"
    return f"{place}{message[0].lower()}{message[1:]}{given}."


def _fields(section: type[Words], path: Iterable[str]) -> list[str]:
    """The field names at a dotted path; what is no field is a position in a list or a key of a mapping."""
    for part in path:
        if field := section.model_fields.get(part):
            inner = _section(field.annotation)
            if inner is None:
                return []
            section = inner
    return list(section.model_fields)


def _section(annotation: Any) -> type[Words] | None:
    if isinstance(annotation, type) and issubclass(annotation, Words):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section(inner))), None)
