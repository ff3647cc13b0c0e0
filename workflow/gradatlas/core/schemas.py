"""Settings and sheets: the JSON Schema of a dataclass, and values checked against it, one line for each mistake.

A setting is written once, as a field of a frozen dataclass: its type, its default, and in the string below its meaning.
Help shows that string (cyclopts reads it), an error ends with it, and config/README.md has it in its tables.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from gradatlas.core.errors import InputError, nearest

_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null", Path: "string"}
_WORDS = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false",
          "array": "a list", "object": "keys with values", "null": "nothing"}  # fmt: skip
#: Largest whole number that counts something (has a minimum), where its type states no other.
LARGEST = 10**9
_LONGEST = 200  # characters of a refused value in an error
_TYPES = Draft202012Validator.TYPE_CHECKER


def _pattern(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
    # `$` of JSON Schema is the end of the text; Python's also stands before a last line break.
    if isinstance(value, str) and not re.search(re.sub(r"(?<!\\)\$", r"\\Z", pattern), value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = extend(
    Draft202012Validator,
    {"pattern": _pattern},
    # 1000.0 is no whole number: it would be another text in settings than 1000.
    type_checker=_TYPES.redefine_many(
        {
            "integer": lambda _, value: isinstance(value, int) and not isinstance(value, bool),
            "number": lambda _, value: _TYPES.is_type(value, "number") and math.isfinite(value),
        }
    ),
)
#: Default of a key that may be left out, and for which nothing is filled in.
ABSENT: Any = object()


class Schema:
    """Keywords of JSON Schema for an annotated type: ``Annotated[int, Schema(minimum=1)]``."""

    def __init__(self, **keywords: Any):
        self.keywords = keywords


@cache
def schema_of(kind: Any, *, described: bool = False) -> dict[str, Any]:
    """The JSON Schema of a type, such as a dataclass.

    `described`: with the meanings of fields, which errors need and checks do not. A dataclass can have a CONDITION:
    keywords such as ``if`` and ``then``, for fields that depend on one another.
    """
    part = partial(schema_of, described=described)
    if is_dataclass(kind):
        hints, texts = get_type_hints(kind, include_extras=True), meanings(kind) if described else {}
        parts = {
            field.name: part(hints[field.name])
            | ({} if _is_required(field) or field.default is ABSENT else {"default": _default(field)})
            | ({"description": texts[field.name]} if field.name in texts else {})
            for field in fields(kind)
        }
        required = [field.name for field in fields(kind) if _is_required(field)]
        return {"type": "object", "additionalProperties": False, "properties": parts, "required": required} | (
            getattr(kind, "CONDITION", {})
        )
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bound = {"maximum": LARGEST} if inner[0] is int and "minimum" in inner[1].keywords else {}
        return part(inner[0]) | bound | inner[1].keywords
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        choices = [part(each) for each in inner]
        if NoneType in inner and "type" in choices[0] and len(inner) == 2:
            return choices[0] | {"type": [choices[0]["type"], "null"]}
        return {"anyOf": choices}
    if origin is tuple and Ellipsis not in inner:
        return {"type": "array", "prefixItems": [*map(part, inner)], "minItems": len(inner), "maxItems": len(inner)}
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": part(inner[0])}
    if origin is dict or kind is dict:
        return {"type": "object", "additionalProperties": part(inner[1]) if inner else {}}
    return {"type": _NAMES[kind]} if kind in _NAMES else {}


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: Any) -> Any:
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return asdict(value) if is_dataclass(value) else list(value) if isinstance(value, tuple) else value


@cache
def meanings(kind: Any) -> dict[str, str]:
    """The meaning of each field of a dataclass: the string below it, there or in a class that it inherits from."""
    from docstring_parser import parse_from_object

    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if is_dataclass(each):
            found |= {
                part.arg_name: " ".join((part.description or "").split()) for part in parse_from_object(each).params
            }
    return found


def checked(value: Any, kind: Any, where: str) -> Any:
    """`value` with the defaults of the type `kind` filled in.

    Raises `InputError` at the first key that is refused, naming `where`, the key, and what it can be.
    """
    try:
        complete = _complete(value, schema_of(kind))
        if _Validator(schema_of(kind)).is_valid(complete):
            _check_texts(complete, where)
            return complete
        errors = _Validator(schema_of(kind, described=True)).iter_errors(complete)
        # The deepest is the cause: a misspelt entry, not that the list now lacks the right one.
        error = max(errors, key=lambda each: len(each.absolute_path))
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; remove what encloses its values") from None
    place = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))[0]
        key = f"{place}.{unknown}" if place else unknown
        raise InputError(f"{where}: unknown key '{key}': {nearest(unknown, known)}")
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        key = f"{place}.{missing}" if place else missing
        raise InputError(f"{where}: '{key}' is missing: {meaning_of(error.schema, missing)}")
    value = _short(error.instance)
    fault = f"'{place}': {error.message.replace(repr(error.instance), value)}"
    if error.validator == "pattern" and "title" in error.schema:
        fault = f"'{place}': {value} is not {error.schema['title']}".removeprefix("'': ")
    if error.validator == "maxItems":
        fault = f"'{place}': {len(error.instance)} entries are more than the maximum of {error.validator_value}"
    if error.validator == "enum":
        fault = f"'{place}': {value} is not known: {nearest(error.instance, map(str, error.validator_value))}"
    if error.validator == "type":
        kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
        given = "has no value" if error.instance is None else f"is {value}"
        fault = f"'{place}' {given}; " + (
            "leave it empty" if kinds == ["null"] else f"write {' or '.join(_WORDS[each] for each in kinds)}"
        )
    if error.validator == "contains":
        fault = f"'{place}': {value} must name '{error.validator_value['const']}' too"
    if error.validator in ("anyOf", "oneOf"):
        fault = f"'{place}': {value} is not allowed"
    meaning = error.schema.get("description")
    raise InputError(f"{where}: {fault}{f'. Meaning: {meaning}' if meaning else ''}")


def _check_texts(value: Any, where: str) -> None:
    """`InputError` for half of a character (a lone surrogate) or NUL in a text: no file or command can hold them."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    half = re.search("[\ud800-\udfff]", text)
    if half or re.search(r"(?<!\\)(\\\\)*\\u0000", text):
        what = f"half of a character ({half[0]!r})" if half else "the character NUL"
        raise InputError(f"{where}: a text has {what}, which no file can hold; remove it")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def picked(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Those of the checked `values` that a dataclass has."""
    return {field.name: values[field.name] for field in fields(kind)}


def meaning_of(schema: Mapping[str, Any], key: str) -> str:
    """The meaning of a key of a described schema."""
    return schema.get("properties", {}).get(key, {}).get("description") or "give it a value"


def _complete(value: Any, part: Mapping[str, Any]) -> Any:
    """`value` with defaults filled in, and texts that were meant as numbers, true or false turned into these.

    A cell of a sheet is text, and so is what is inside {...} or [...] on Snakemake's command line. What cannot be
    turned is left for the schema to refuse.
    """
    kinds = part.get("type", "")
    if isinstance(value, Mapping):
        defaults = {key: inner["default"] for key, inner in part.get("properties", {}).items() if "default" in inner}
        complete = {**value, **{key: each for key, each in defaults.items() if key not in value}}
        return {key: _complete(each, part.get("properties", {}).get(key, {})) for key, each in complete.items()}
    if isinstance(value, (list, tuple)):
        return [_complete(each, part.get("items", {})) for each in value]
    if not isinstance(value, str):
        return value
    if "boolean" in kinds and value in ("true", "false"):
        return value == "true"
    if "integer" in kinds and value.removeprefix("-").isdecimal():
        return int(value)
    if "number" in kinds:
        with suppress(ValueError):
            return float(value)
    return value
