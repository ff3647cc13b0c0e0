"""Digests of the code that decides a job's numbers, so that an edit makes exactly its outputs stale.

A job is a function. Its digest covers that function and, transitively, every top-level definition of this package that
it uses, as syntax trees. What decides no number is left out: comments, docstrings and layout, the text of errors and of
progress lines, and the room `core`. Snakemake itself only tracks the text of ``shell:``, which never changes.

What is used is read off the code: a name, an annotation (methods are called on what it names), an attribute of an
imported module, an import inside a function. A module that is passed on as a value counts as a whole.

Of a registry (a dict at the top of a module, text to function) a job may use one entry: `only` names the entries that
its settings choose, and the others do not count.
"""

import ast
import gc
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

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
    total = hashlib.sha256()
    with _without_collector():
        used = sorted(_used_by(roots, only or {}).items(), key=lambda item: item[0])
    for (module, name), definition in used:
        total.update(f"{module}:{name}\n{definition.text}\n".encode())
    return total.hexdigest()[:16]


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
    """Statements at the top of a module, by the name that they define.

    `imported`: what a name at the top stands for, (module, name of a definition) or (module, "") for a module itself.
    """

    nodes: dict[str, list[ast.stmt]] = field(default_factory=dict)
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
        elif name in parsed.nodes:
            found[place] = _read([_entries(place, chosen[place])]) if place in chosen else _definition(place)
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
    if name and name not in _parsed(module).nodes:
        raise AttributeError(f"module '{module}' defines no '{name}'")
    return module, name


def _whole(module: str) -> list[Place]:
    return [(module, _IMPORT), *((module, name) for name in _parsed(module).nodes)]


def _entries(place: Place, names: Collection[str]) -> ast.Dict:
    """The dict of the chosen entries of a registry; a name that it does not have is the job's to report."""
    [node] = _parsed(place[0]).nodes[place[1]]
    entries = {ast.literal_eval(key): value for key, value in zip(node.value.keys, node.value.values, strict=True)}
    kept = sorted({*names} & {*entries})
    return ast.Dict([ast.Constant(name) for name in kept], [entries[name] for name in kept])


@cache
def _parsed(module: str) -> _Module:
    path = _file_of(module)
    assert path is not None
    found = _Module()
    for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imported |= _imports(node)
        elif not _is_text(node):
            for name in (*_defined(node), *([_EFFECTS] if _has_effect(node) else [])):
                found.nodes.setdefault(name, []).append(node)
    return found


@cache
def _definition(place: Place) -> _Definition:
    module, name = place
    return _read(_parsed(module).nodes[name])


def _read(nodes: Sequence[ast.AST]) -> _Definition:
    """In one walk, since every start of the workflow does this for the whole package."""
    found, parts = _Definition(), []

    def refer(node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            found.names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.attributes.add((node.value.id, node.attr))

    def walk(node: ast.AST) -> None:
        if _is_text(node):
            return
        parts.append(type(node).__name__)
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imported.update(_imports(node))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            refer(node)
            parts.append(f"{node.value.id}.{node.attr}")
            return
        refer(node)
        message = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MESSAGES
        if message and node.func.id == _CALLING:
            for each in (each for part in node.args for each in ast.walk(part) if isinstance(each, ast.Call)):
                refer(each.func)
        for name in ("func",) if message else node._fields:
            if name in _UNSAID:
                continue
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                walk(value)
            elif isinstance(value, list):
                parts.append("[")
                for each in value:
                    walk(each) if isinstance(each, ast.AST) else parts.append(repr(each))
                parts.append("]")
            else:
                parts.append(repr(value))

    for node in nodes:
        walk(node)
    found.text = " ".join(parts)
    return found


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
    effects = [(module, _EFFECTS)] if _EFFECTS in parsed.nodes else []
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
        elif name in parsed.nodes:
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
