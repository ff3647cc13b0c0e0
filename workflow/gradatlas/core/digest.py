"""A digest of the code behind a rule, so that an edit of it makes the rule's outputs stale.

The digest covers the script and every ``workflow`` module it imports, transitively, as syntax trees
without docstrings: comments, layout, file times, checkouts and moved folders do not change it, every
real edit does. Snakemake itself only tracks the text of ``shell:``, which never changes.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "workflow"


def code_digest(module: str) -> str:
    """Digest of `module` (dotted name, as for ``python -m``) and of all it imports from here.

    Returns 16 hexadecimal digits. Raises `ModuleNotFoundError` where the module has no file.
    """
    return module_digest(*sorted(_closure(module)))


def module_digest(*modules: str) -> str:
    """Digest of these modules alone, without what they import: for results that hang on little code."""
    total = hashlib.sha256()
    for name in modules:
        total.update(f"{name}\n{_parsed(name)[0]}\n".encode())
    return total.hexdigest()[:16]


def _closure(module: str) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(_parsed(name)[1])
    return seen


@cache
def _parsed(module: str) -> tuple[str, tuple[str, ...]]:
    """A module's bare syntax tree as text, and the modules of this package it imports."""
    path = _file_of(module)
    if path is None:
        raise ModuleNotFoundError(f"no module '{module}' below {ROOT}")
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imported = tuple(sorted(set(_imports(tree)) - {module}))
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            # `pass` keeps a body that was nothing but its docstring.
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree), imported


def _imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
            # `from gradatlas.statistics import curves` names a module; `import mad` a function.
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name.split(".")[0] == PACKAGE and _file_of(name)]


def _file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
