"""Runs the cells of a notebook in order, in this process, and keeps what each shows: ``python notebook.py FILE``.

A Jupyter kernel would bring twenty packages for the same.
"""

import ast
import base64
import contextlib
import io
import os
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_output


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of its cells, run in its own folder."""
    book, names = nbformat.read(path, as_version=4), {}
    with contextlib.chdir(path.parent):
        for count, cell in enumerate((each for each in book.cells if each.cell_type == "code"), start=1):
            *lines, last = ast.parse(cell.source).body
            shows = isinstance(last, ast.Expr)
            with contextlib.redirect_stderr(io.StringIO()):
                exec(compile(ast.Module([*lines, *([] if shows else [last])], []), str(path), "exec"), names)
                value = eval(compile(ast.Expression(last.value), str(path), "eval"), names) if shows else None
            cell.execution_count = count
            cell.outputs = [new_output("execute_result", shown(value), execution_count=count)] if shows else []
    return book


def shown(value) -> dict:
    """What a notebook shows of a value: a table as text and HTML, a chart as a picture."""
    if hasattr(value, "to_dict") and hasattr(value, "mark_point"):
        import vl_convert

        return {"image/png": base64.b64encode(vl_convert.vegalite_to_png(value.to_dict(), scale=1.5)).decode()}
    html = {"text/html": value._repr_html_()} if hasattr(value, "_repr_html_") else {}
    return {"text/plain": repr(value), **html}


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    nbformat.write(run(Path(sys.argv[1])), sys.argv[1])
