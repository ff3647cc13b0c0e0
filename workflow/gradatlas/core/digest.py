"""Digests of the code that decides a job's numbers, so that an edit makes exactly its outputs stale.

A job is a function. Its digest covers that function and, transitively, every top-level definition of this package that
it uses, as syntax trees. What decides no number is left out: comments, docstrings and layout, the text of errors and of
progress lines, and the room `core`. Snakemake itself only tracks the text of ``shell:``, which never changes.

What is used is read off the code: a name, an annotation (methods are called on what it names), an attribute of an
imported module, an import inside a function. A module that is passed on as a value counts as a whole.

Of a registry (a dict at the top of a module, text to function) a job may use one entry: `only` names the entries that
its settings choose, and the others do not count.

Reading the package takes a second. Digests are therefore kept in the user's cache, by the content of all its files.
"""

import ast
import gc
import hashlib
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "gradatlas"
# Decides no number: errors, files, tables in and out, the device lease, the command line.
UNCOUNTED = f"{PACKAGE}.core"
# Calls whose arguments are for people. A job that ends with the user's error writes nothing, whatever the error says;
# what is called for the sake of a line of progress may write a table all the same.
MESSAGES = {"progress", "InputError"}
_CALLING = "progress"
# Fields of the syntax that say nothing of what is done.
_UNSAID = {"ctx", "kind", "type_comment"}
# What a module does when it is imported: of its own, and by importing others.
_EFFECTS = "<effects>"
_IMPORT = "<import>"
#: Versions of the code whose digests are kept.
CACHED = 100
# Decorators that leave nothing behind but the definition itself.
_HARMLESS = {"dataclass", "contextmanager", "cache", "lru_cache", "cached_property", "property", "no_grad", "wraps"}
_HARMLESS |= {"inference_mode", "staticmethod", "classmethod"}

#: (module, name of a definition at its top).
Place = tuple[str, str]
Only = Mapping[str, Collection[str]]


def code_digest(*roots: str, only: Only | None = None) -> str:
    """The digest of all that the `roots` use, 16 hexadecimal digits.

    A root is a function, ``room.module:function``, or a module. `only`: the chosen entries of registries, by
    ``room.module:NAME``. Raises `ModuleNotFoundError` for a module without a file, and `AttributeError` for a module
    without that definition.
    """
    return _digest(roots, frozenset((registry, frozenset(names)) for registry, names in (only or {}).items()))


@cache
def _digest(roots: tuple[str, ...], only: frozenset[tuple[str, frozenset[str]]]) -> str:
    """Kept, since hundreds of jobs of one rule ask for few different ones."""
    asked = hashlib.sha256(repr((roots, sorted((name, sorted(names)) for name, names in only))).encode()).hexdigest()
    if kept := _known().get(asked):
        return kept
    total = hashlib.sha256()
    with _without_collector():
        used = sorted(_used_by(roots, dict(only)).items(), key=lambda item: item[0])
    for (module, name), definition in used:
        total.update(f"{module}:{name}\n{definition.text}\n".encode())
    found = total.hexdigest()[:16]
    # Without a cache the next start is slower, and nothing else.
    with suppress(OSError), _cached().open("a") as file:
        file.write(f"{asked} {found}\n")
    return found


@cache
def _cached() -> Path:
    """The file of the digests of this very code, as this Python reads it; those of older code are removed."""
    content = hashlib.sha256(repr(sys.version_info).encode() + Path(__file__).read_bytes())
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        content.update(f"\n{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    folder = user_cache_path("gradatlas") / "digests"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-CACHED]:
            path.unlink()
    return folder / content.hexdigest()


@cache
def _known() -> dict[str, str]:
    """Digests that were computed before: by what was asked."""
    lines: list[str] = []
    with suppress(OSError):
        lines = _cached().read_text(errors="replace").splitlines()
    # What a full disk, a power failure or two writers on a network file system left of a line is none.
    return dict(line.split() for line in lines if re.fullmatch("[0-9a-f]{64} [0-9a-f]{16}", line))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Syntax trees are many objects, none of them garbage: without the collector reading them takes half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def definitions(*roots: str, only: Only | None = None) -> set[Place]:
    """(module, name) of every definition that the `roots` use, themselves among them."""
    return set(_used_by(roots, only or {}))


@dataclass
class _Definition:
    """A top-level definition: its syntax as text, without what decides no number, and what it refers to.

    `attributes`: (name, attribute) of ``name.attribute``; `imported`: what its own imports bind (`_imports`).
    """

    text: str = ""
    names: set[str] = field(default_factory=set)
    attributes: set[tuple[str, str]] = field(default_factory=set)
    imported: dict[str, Place] = field(default_factory=dict)


@dataclass
class _Module:
    """What stands at the top of a module, by name; no syntax tree of it but the dicts that may be registries.

    `imported`: what a name at the top stands for, (module, name of a definition) or (module, "") for a module itself.
    """

    definitions: dict[str, _Definition] = field(default_factory=dict)
    registries: dict[str, ast.Dict] = field(default_factory=dict)
    imported: dict[str, Place] = field(default_factory=dict)


def _used_by(roots: Sequence[str], only: Only) -> dict[Place, _Definition]:
    chosen = {_place(registry): names for registry, names in only.items()}
    waiting = [each for root in roots for each in _rooted(root)]
    found: dict[Place, _Definition] = {}
    seen: set[Place] = set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        module, name = place
        parsed = _parsed(module)
        if name == _IMPORT:
            waiting += _imported_by(module)
        elif name in parsed.definitions:
            found[place] = _entries(place, chosen[place]) if place in chosen else parsed.definitions[name]
            waiting += [(module, _IMPORT), *_references(module, found[place])]
        elif name in parsed.imported:
            # Handed on from another module.
            waiting += [(module, _IMPORT), *_resolved(*parsed.imported[name])]
    return found


def _rooted(root: str) -> list[Place]:
    module, name = _place(root)
    return [(module, name)] if name else _whole(module)


def _place(root: str) -> Place:
    module, _, name = root.partition(":")
    if module.split(".")[0] != PACKAGE:
        module = f"{PACKAGE}.{module}"
    if _file_of(module) is None:
        raise ModuleNotFoundError(f"no module '{module}' below {ROOT}")
    if name and name not in _parsed(module).definitions:
        raise AttributeError(f"module '{module}' defines no '{name}'")
    return module, name


def _whole(module: str) -> list[Place]:
    return [(module, _IMPORT), *((module, name) for name in _parsed(module).definitions)]


def _entries(place: Place, names: Collection[str]) -> _Definition:
    """The dict of the chosen entries of a registry; a name that it does not have is the job's to report."""
    registry = _parsed(place[0]).registries[place[1]]
    entries = {ast.literal_eval(key): value for key, value in zip(registry.keys, registry.values, strict=True)}
    kept = sorted({*names} & {*entries})
    return _read([ast.Dict([ast.Constant(name) for name in kept], [entries[name] for name in kept])])


@cache
def _parsed(module: str) -> _Module:
    path = _file_of(module)
    assert path is not None
    found, nodes = _Module(), {}
    for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imported |= _imports(node)
        elif not _is_text(node):
            for name in (*_defined(node), *([_EFFECTS] if _has_effect(node) else [])):
                nodes.setdefault(name, []).append(node)
                if isinstance(getattr(node, "value", None), ast.Dict):
                    found.registries[name] = node.value
    found.definitions = {name: _read(each) for name, each in nodes.items()}
    return found


def _read(nodes: Sequence[ast.AST]) -> _Definition:
    """In one walk, since every start of the workflow does this for much of the package."""
    found, parts = _Definition(), []

    def walk(node: ast.AST) -> None:
        kind = type(node)
        if kind is ast.Expr and type(node.value) is ast.Constant:
            return
        parts.append(kind.__name__)
        names = _said(kind)
        if kind is ast.Name:
            found.names.add(node.id)
        elif kind is ast.Attribute and type(node.value) is ast.Name:
            found.attributes.add((node.value.id, node.attr))
            parts.append(f"{node.value.id}.{node.attr}")
            return
        elif kind is ast.Import or kind is ast.ImportFrom:
            found.imported.update(_imports(node))
        elif kind is ast.Call and type(node.func) is ast.Name and node.func.id in MESSAGES:
            names = ("func",)
            if node.func.id == _CALLING:
                refer(each.func for part in node.args for each in ast.walk(part) if isinstance(each, ast.Call))
        for name in names:
            value = getattr(node, name, None)
            if type(value) is list:
                parts.append("[")
                for each in value:
                    walk(each) if isinstance(each, ast.AST) else parts.append(repr(each))
                parts.append("]")
            elif isinstance(value, ast.AST):
                walk(value)
            else:
                parts.append(repr(value))

    def refer(called: Iterable[ast.expr]) -> None:
        for each in called:
            if isinstance(each, ast.Name):
                found.names.add(each.id)
            elif isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name):
                found.attributes.add((each.value.id, each.attr))

    for node in nodes:
        walk(node)
    found.text = " ".join(parts)
    return found


@cache
def _said(kind: type[ast.AST]) -> tuple[str, ...]:
    """The fields of a kind of syntax that say what is done."""
    return tuple(name for name in kind._fields if name not in _UNSAID)


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a docstring, or another text on its own."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _defined(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines; none for one that is there for its effect."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [each.id for target in targets if target for each in ast.walk(target) if isinstance(each, ast.Name)]


def _has_effect(node: ast.stmt) -> bool:
    """Whether a top-level statement does more than to define: a call, or a decorator that keeps the function."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        called = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
        return any((each.id if isinstance(each, ast.Name) else each.attr) not in _HARMLESS for each in called)
    return not _defined(node)


def _imports(node: ast.Import | ast.ImportFrom) -> dict[str, Place]:
    """What the names of an import stand for, those of this package."""
    found = {}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if _file_of(inner):
                found[alias.asname or alias.name] = (inner, "")
            elif _file_of(node.module):
                found[alias.asname or alias.name] = (node.module, alias.name)
    elif isinstance(node, ast.Import):
        for alias in node.names:
            if _file_of(alias.name):
                # `import a.b.c` binds a; with a name of its own, the module itself.
                found[alias.asname or alias.name.split(".")[0]] = (alias.name, "")
    return found


def _imported_by(module: str) -> list[Place]:
    """What a module does when it is imported: of its own, and by importing others."""
    parsed = _parsed(module)
    others = {
        origin if not name or not _file_of(f"{origin}.{name}") else f"{origin}.{name}"
        for origin, name in parsed.imported.values()
    }
    effects = [(module, _EFFECTS)] if _EFFECTS in parsed.definitions else []
    return [*effects, *((other, _IMPORT) for other in others if not _is_uncounted(other))]


def _references(module: str, definition: _Definition) -> Iterator[Place]:
    """The definitions of this package that a definition of a module refers to."""
    parsed = _parsed(module)
    imported = parsed.imported | definition.imported
    names = set(definition.names)
    for name, attribute in definition.attributes:
        origin, inner = imported.get(name, ("", ""))
        if origin and not inner:
            yield from _resolved(origin, attribute)
        else:
            names.add(name)
    for name in names:
        if name in imported:
            yield from _resolved(*imported[name])
        elif name in parsed.definitions:
            yield module, name


def _resolved(module: str, name: str) -> list[Place]:
    """A definition where it is defined; a module as a whole where no name is taken from it; nothing of `core`."""
    if _is_uncounted(module):
        return []
    if name and _file_of(f"{module}.{name}"):
        module, name = f"{module}.{name}", ""
    return [(module, name)] if name else _whole(module)


def _is_uncounted(module: str) -> bool:
    return module == UNCOUNTED or module.startswith(f"{UNCOUNTED}.")


@cache
def _file_of(module: str) -> Path | None:
    if module.split(".")[0] != PACKAGE:
        return None
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
