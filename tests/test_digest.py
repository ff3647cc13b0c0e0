"""The code digest: silent for comments, docstrings and layout, loud for every real edit, also of an import."""

import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from gradatlas.core.digest import code_digest


@pytest.fixture
def tree(tmp_path):
    """A copy of the code, to edit."""
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def digest(tree, module="workflow.scripts.summarise_gradients"):
    code = f"from gradatlas.core.digest import code_digest; print(code_digest({module!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True).stdout


def edit(tree, name, old, new):
    path = tree / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_moved_copied_commented_and_documented_code_is_the_same(tree):
    before = digest(tree)
    assert before.strip() == code_digest("workflow.scripts.summarise_gradients")
    edit(tree, "workflow/gradatlas/statistics/measures.py", '"""The study\'s', '"""Another word on the study\'s')
    edit(tree, "workflow/gradatlas/statistics/bootstrap.py", "LEVEL = 0.95", "# The usual one.\nLEVEL   =   0.95")
    assert digest(tree) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("workflow/scripts/summarise_gradients.py", "required=True", "required=False"),
        ("workflow/gradatlas/statistics/bootstrap.py", "LEVEL = 0.95", "LEVEL = 0.9"),
        ("workflow/gradatlas/core/errors.py", "cutoff=0.5", "cutoff=0.6"),
    ],
    ids=["the script", "a module it imports inside a function", "a module that one imports"],
)
def test_a_real_edit_fires(tree, name, old, new):
    before = digest(tree)
    edit(tree, name, old, new)
    assert digest(tree) != before


def test_another_room_does_not_fire(tree):
    before = digest(tree)
    edit(tree, "workflow/gradatlas/gradients/spectra.py", "_TILE = 1 << 24", "_TILE = 1 << 20")
    assert digest(tree) == before


def test_unknown_module_is_an_error():
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        code_digest("workflow.scripts.no_such")


def test_a_module_digest_hears_its_own_module_alone(tree):
    code = (
        "from gradatlas.core.digest import module_digest; "
        "print(module_digest('gradatlas.gradients.capture', 'gradatlas.gradients.spectra'))"
    )

    def engine():
        return subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True).stdout

    before = engine()
    edit(tree, "workflow/gradatlas/core/errors.py", "did you mean", "perhaps")
    assert engine() == before, "a reworded message would throw a journal away"
    edit(tree, "workflow/gradatlas/gradients/spectra.py", "_TILE = 1 << 24", "_TILE = 1 << 20")
    assert engine() != before
