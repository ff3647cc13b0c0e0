"""The command line of jobs, made from their signatures and docstrings; how every job ends.

0: done; 2: the user's error, one line; 1: a fault of the program, with its traceback.
"""

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from cyclopts import App, CycloptsError, Parameter, Token

from gradatlas.core.errors import InputError
from gradatlas.core.files import disk_error, from_json
from gradatlas.core.schemas import checked

T = TypeVar("T")


def _parsed(kind: type[T], tokens: Sequence[Token]) -> T:
    from pydantic import TypeAdapter

    option, text = tokens[0].keyword or "--settings", tokens[0].value
    try:
        value = from_json(text)
    except ValueError as error:
        raise InputError(f"{option}: not JSON ({error})") from None
    return TypeAdapter(kind).validate_python(checked(value, kind, option))


#: ``Json[Settings]``: a settings value with nested parts, given as JSON.
Json = Annotated[T, Parameter(converter=_parsed, n_tokens=1, accepts_keys=False)]
#: ``Options[Settings]``: a flat one, given as JSON by a rule, or each field as an option of its own.
Options = Annotated[T, Parameter(name=["*", "--settings"])]
#: The same, for how an endpoint is asked.
RequestOptions = Annotated[T, Parameter(name=["*", "--requests"])]


def by_name(names: Sequence[str], paths: Sequence[Path], option: str) -> dict[str, Path]:
    """The `paths` that `option` gives, by the `names` of the settings; `InputError` where their numbers differ."""
    if len(names) != len(paths):
        raise InputError(f"{option} gives {len(paths)} files, the settings name {len(names)}; give one of each")
    return dict(zip(names, paths, strict=True))


def application(jobs: Mapping[str, str], descriptions: Mapping[str, str] = MappingProxyType({})) -> App:
    """The command line of `jobs`: by name, the room in whose module ``jobs`` the function is.

    A job's module is imported when it is called, not before: the list of jobs shows `descriptions`, by name.
    """
    app = App(
        name="gradatlas",
        help="What a piece of fine-tuning data does to each layer of a language model.",
        default_parameter=Parameter(consume_multiple=True, negative=()),
        result_action="return_value",
    )
    for name, room in jobs.items():
        app.command(f"gradatlas.{room}.jobs:{name.replace('-', '_')}", name=name, help=descriptions.get(name))
    return app


def run(
    jobs: Mapping[str, str],
    argv: Sequence[str] | None = None,
    descriptions: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run one of the jobs by its command line; ends the process with 2 after the user's error."""
    # Waiting OpenMP threads spin by default: on a core shared with another job that cost a factor of seven.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code: Any
    try:
        code, text = application(jobs, descriptions)(argv, exit_on_error=False, print_error=False), ""
    except (CycloptsError, InputError) as error:
        # A field of settings that are given as JSON is ``[*][field]`` there.
        code, text = 2, re.sub(r"\[\*\]\[(\w+)\]", r"settings.\1", " ".join(str(error).split()))
    except ImportError as error:
        # The command line raises its own from a job's; of another module of this package it is a fault of the program.
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        package = (cause.name or "gradatlas").partition(".")[0]
        if package == "gradatlas" or importlib.util.find_spec(package):
            raise
        code, text = 2, f"package {package} is not installed; pip install '.[workflow]' in a checkout installs all"
    except Exception as error:
        if not (found := disk_error(error)):
            raise
        code, text = 2, str(found)
    if text:
        print(f"error: {text}", file=sys.stderr)
    if code:
        sys.exit(code)
