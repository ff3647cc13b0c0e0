"""Digests of the code that decides a job's numbers, so that an edit makes exactly its outputs stale.

A job is a function. Its digest covers that function and, transitively, every top-level definition of this package that
it uses, as syntax trees. What decides no number is left out: comments, docstrings and layout, the text of errors and of
progress lines, and the room `core`. Snakemake itself only tracks the text of ``shell:``, which never changes.

What is used is read off the code: a name, an annotation (methods are called on what it names), an attribute of an
imported module, an import inside a function. A module that is passed on as a value counts as a whole.
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "gradatlas"
# Decides no number: errors, files, tables in and out, the device lease, the command line.
UNCOUNTED = f"{PACKAGE}.core"
# Calls whose arguments are for people.
MESSAGES = {"progress"}
# What a module does when it is imported: of its own, and by importing others.
_EFFECTS = "<effects>"
_IMPORT = "<import>"
# Decorators that leave nothing behind but the definition itself.
_HARMLESS = {"dataclass", "contextmanager", "cache", "lru_cache", "cached_property", "property", "no_grad", "wraps"}
_HARMLESS |= {"inference_mode", "staticmethod", "classmethod"}


def code_digest(*roots: str) -> str:
    """The digest of all that the `roots` use, 16 hexadecimal digits.

    A root is a function, ``room.module:function``, or a whole module. Raises `ModuleNotFoundError` for a module without
    a file, and `AttributeError` for a module without that definition.
    """
    total = hashlib.sha256()
    for module, name in sorted(definitions(*roots)):
        total.update(f"{module}:{name}\n{_parsed(module).texts[name]}\n".encode())
    return total.hexdigest()[:16]


def definitions(*roots: str) -> set[tuple[str, str]]:
    """(module, name) of every definition that the `roots` use, themselves among them."""
    waiting = [each for root in roots for each in _rooted(root)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting.extend(_uses(*each))
    return {(module, name) for module, name in seen if name in _parsed(module).texts}


def _rooted(root: str) -> list[tuple[str, str]]:
    module, _, name = root.partition(":")
    if module.split(".")[0] != PACKAGE:
        module = f"{PACKAGE}.{module}"
    if _file_of(module) is None:
        raise ModuleNotFoundError(f"no module '{module}' below {ROOT}")
    if name and name not in _parsed(module).texts:
        raise AttributeError(f"module '{module}' defines no '{name}'")
    return [(module, name)] if name else _whole(module)


def _whole(module: str) -> list[tuple[str, str]]:
    return [(module, _IMPORT), *((module, name) for name in _parsed(module).texts)]


@dataclass
class _Module:
    """Top-level definitions by name: their bare syntax, as text and as nodes.

    `imported`: what a name at the top stands for, (module, name of a definition) or (module, "") for a module itself.
    """

    texts: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)


@cache
def _parsed(module: str) -> _Module:
    path = _file_of(module)
    assert path is not None
    tree = _Bare().visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    found = _Module()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.imported |= _imports(node)
            continue
        for name in (*_defined(node), *([_EFFECTS] if _has_effect(node) else [])):
            found.nodes.setdefault(name, []).append(node)
    found.texts = {name: "\n".join(map(ast.dump, nodes)) for name, nodes in found.nodes.items()}
    return found


class _Bare(ast.NodeTransformer):
    """Drops what decides no number."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant):
            return None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        # A job that ends with the user's error writes nothing, whatever the error says.
        if isinstance(node.exc, ast.Call) and getattr(node.exc.func, "id", "") == "InputError":
            return ast.copy_location(ast.Raise(exc=node.exc.func), node)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in MESSAGES:
            return ast.copy_location(ast.Call(func=node.func, args=[], keywords=[]), node)
        return self.generic_visit(node)


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


def _imports(node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str]]:
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


@cache
def _uses(module: str, name: str) -> tuple[tuple[str, str], ...]:
    """What one definition uses, by (module, name); all that a module does when it is imported, too."""
    parsed = _parsed(module)
    if name == _IMPORT:
        others = {
            origin if not inner or not _file_of(f"{origin}.{inner}") else f"{origin}.{inner}"
            for origin, inner in parsed.imported.values()
        }
        effects = [(module, _EFFECTS)] if _EFFECTS in parsed.nodes else []
        return (*effects, *((other, _IMPORT) for other in sorted(others) if not _is_uncounted(other)))
    used = [(module, _IMPORT)]
    if name not in parsed.nodes:
        # Handed on from another module.
        return (*used, *(_resolved(*parsed.imported[name]) if name in parsed.imported else ()))
    for node in parsed.nodes[name]:
        inner: dict[str, tuple[str, str]] = {}
        for each in ast.walk(node):
            if isinstance(each, ast.Import | ast.ImportFrom):
                inner |= _imports(each)
        used += _references(node, parsed, module, parsed.imported | inner)
    return tuple(used)


def _references(
    node: ast.AST, parsed: _Module, module: str, imported: dict[str, tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """The definitions of this package that the names below a node stand for."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        origin, name = imported.get(node.value.id, ("", ""))
        if origin and not name:
            yield from _resolved(origin, node.attr)
            return
    if isinstance(node, ast.Name):
        if node.id in imported:
            yield from _resolved(*imported[node.id])
        elif node.id in parsed.nodes:
            yield module, node.id
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.Import | ast.ImportFrom):
            yield from _references(child, parsed, module, imported)


def _resolved(module: str, name: str) -> list[tuple[str, str]]:
    """A definition where it stands; a module as a whole where no name is taken from it; nothing of `core`."""
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
