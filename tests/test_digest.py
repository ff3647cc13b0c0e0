"""The code digest: every edit that can change a job's numbers, and no other."""

import ast
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from gradatlas.__main__ import JOBS
from gradatlas.core import digest
from gradatlas.core.digest import code_digest, definitions

# A package in miniature: a job, what it uses in every way there is, and what it does not use.
FILES = {
    "core/errors.py": "class InputError(Exception):\n    pass\n",
    "core/files.py": "MODE = 'w'\ndef write(text, path):\n    open(path, MODE).write(text)\n",
    "core/command.py": "def progress(line):\n    print(line)\n",
    "data/words.py": "COLOURS = ['red', 'blue']\nSHAPES = ['round']\n",
    "data/corpus.py": (
        "from gradatlas.data import words\n"
        "def colours(n):\n    return words.COLOURS[:n]\n"
        "def shapes():\n    return words.SHAPES\n"
    ),
    "data/registry.py": (
        "LOSSES = {}\n"
        "def loss(name):\n    return lambda function: LOSSES.setdefault(name, function)\n"
        "@loss('sft')\n"
        "def sft(x):\n    return -x\n"
        "def named(name):\n    return LOSSES[name]\n"
    ),
    "data/readers.py": (
        "def csv(path):\n    return path\n"
        "def json(path):\n    return path * 2\n"
        "def shared():\n    return READERS\n"
        "READERS: dict = {'csv': csv, 'json': json}\n"
    ),
    "data/handed_on.py": "from gradatlas.data.corpus import colours\n",
    "models/late.py": "RATE = 0.1\nOTHER = 0.2\ndef step(x):\n    return x * RATE\n",
    "models/passed.py": "def one():\n    return 1\ndef two():\n    return 2\n",
    "jobs.py": (
        '"""Jobs."""\n'
        "from dataclasses import dataclass\n"
        "from gradatlas.core.command import progress\n"
        "from gradatlas.core.errors import InputError\n"
        "from gradatlas.core.files import write\n"
        "from gradatlas.data.handed_on import colours\n"
        "from gradatlas.data.registry import named\n"
        "from gradatlas.models import passed\n"
        "LIMIT = 3\n"
        "def helper(kind):\n    return getattr(passed, kind)\n"
        "@dataclass\n"
        "class Settings:\n"
        "    n: int = 2\n"
        '    """how many"""\n'
        "    def check(self):\n        return self.n < LIMIT\n"
        "def job(path: str, settings: Settings) -> None:\n"
        '    """Do it."""\n'
        "    from gradatlas.models.late import step\n"
        "    if not settings.check():\n"
        "        raise InputError('too many')\n"
        "    progress('working')\n"
        "    progress(saved('done'))\n"
        "    write(str(step(len(colours(settings.n)))) + str(helper('one')()) + str(named('sft')(1)), path)\n"
        "def saved(text):\n    write('table', text)\n"
        "def other():\n    return 1\n"
        "def reading(kind, path):\n"
        "    from gradatlas.data.readers import READERS\n"
        "    return READERS[kind](path)\n"
    ),
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package's folder; the digest looks there."""
    for name, text in FILES.items():
        path = tmp_path / "gradatlas" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    (tmp_path / "gradatlas" / "__init__.py").touch()
    monkeypatch.setattr(digest, "ROOT", tmp_path)
    forget()
    yield tmp_path / "gradatlas"
    forget()


def forget():
    for each in (digest._digest, digest._cached, digest._known, digest._parsed, digest._file_of):
        each.cache_clear()


def edited(package, name, old, new):
    """The digests of the job before and after an edit."""
    before = code_digest("jobs:job")
    text = (package / name).read_text()
    assert text.count(old) == 1
    (package / name).write_text(text.replace(old, new))
    forget()
    return before, code_digest("jobs:job")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("jobs.py", "LIMIT = 3", "# The most.\nLIMIT  =  3"),
        ("jobs.py", '"""Do it."""', '"""Do it well."""'),
        ("jobs.py", '"""how many"""', '"""how many at most"""'),
        ("jobs.py", "'too many'", "f'{settings.n} are too many'"),
        ("jobs.py", "'working'", "f'working on {path}'"),
        ("jobs.py", "saved('done')", "saved('finished')"),
        ("jobs.py", "def other():\n    return 1", "def other():\n    return 2"),
        ("core/files.py", "MODE = 'w'", "MODE = 'wt'"),
        ("core/errors.py", "pass", "code = 2"),
        ("data/words.py", "['round']", "['round', 'long']"),
        ("data/corpus.py", "return words.SHAPES", "return words.SHAPES[:1]"),
        ("models/late.py", "OTHER = 0.2", "OTHER = 0.3"),
    ],
)
def test_what_decides_no_number_does_not_count(package, name, old, new):
    before, after = edited(package, name, old, new)
    assert before == after


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("jobs.py", "LIMIT = 3", "LIMIT = 4"),
        ("jobs.py", "n: int = 2", "n: int = 1"),
        ("jobs.py", "self.n < LIMIT", "self.n < LIMIT - 1"),
        ("jobs.py", "self.n < LIMIT", "self.n <= LIMIT"),
        ("jobs.py", "if not settings.check()", "if settings.check()"),
        ("jobs.py", "helper('one')", "helper('two')"),
        ("jobs.py", "write('table', text)", "write('other', text)"),
        ("data/words.py", "'red'", "'green'"),
        ("data/corpus.py", "[:n]", "[:n + 1]"),
        ("data/registry.py", "return -x", "return x"),
        ("data/registry.py", "LOSSES = {}", "LOSSES = dict()"),
        ("data/handed_on.py", "import colours", "import shapes as colours"),
        ("models/late.py", "RATE = 0.1", "RATE = 0.2"),
        ("models/passed.py", "return 2", "return 3"),
    ],
    ids=[
        "a constant of a method",
        "a default of the settings",
        "a method of what an annotation names",
        "a method",
        "a condition",
        "an argument",
        "what is called for a line of progress",
        "a constant of an imported module",
        "a function handed on by another module",
        "a function kept by its decorator",
        "the registry",
        "which function is handed on",
        "an import inside the function",
        "a module that is passed on as a value",
    ],
)
def test_what_decides_a_number_counts(package, name, old, new):
    before, after = edited(package, name, old, new)
    assert before != after


def test_the_definitions_are_those_used(package):
    found = {f"{module.removeprefix('gradatlas.')}:{name}" for module, name in definitions("jobs:job")}
    assert found == {
        *("jobs:job", "jobs:helper", "jobs:Settings", "jobs:LIMIT", "jobs:saved"),
        *("models.late:step", "models.late:RATE", "models.passed:one", "models.passed:two"),
        *("data.corpus:colours", "data.words:COLOURS", "data.registry:named", "data.registry:LOSSES"),
        *("data.registry:loss", "data.registry:<effects>"),
    }


def test_of_a_registry_only_the_chosen_entries_count(package):
    registry = "data.readers:READERS"

    def digests():
        forget()
        return {kind: code_digest("jobs:reading", only={registry: [kind]}) for kind in ("csv", "json")}

    before = digests()
    path = package / "data/readers.py"
    path.write_text(path.read_text().replace("path * 2", "path * 3"))
    after = digests()
    assert after["csv"] == before["csv"] and after["json"] != before["json"]
    path.write_text(path.read_text().replace("'csv': csv", "'csv': json"))
    assert digests()["csv"] != after["csv"] and digests()["json"] == after["json"]
    path.write_text(path.read_text().replace("{'csv': json,", "{'tsv': csv, 'csv': json,"))
    assert digests()["json"] == after["json"], "another entry"
    # A name that the user got wrong: the job says so.
    assert code_digest("jobs:reading", only={registry: ["xml"]}) == code_digest("jobs:reading", only={registry: []})


def test_a_wrong_root_is_an_error(package):
    with pytest.raises(ModuleNotFoundError, match=r"gradatlas\.nothing"):
        code_digest("nothing:job")
    with pytest.raises(AttributeError, match="'nothing'"):
        code_digest("jobs:nothing")


def test_digests_are_kept_by_the_content_of_the_package(package, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "CACHED", 2)
    forget()
    found, other = code_digest("jobs:job"), code_digest("data.words")
    (kept,) = (tmp_path / "cache/gradatlas/digests").iterdir()
    first, second = kept.read_text().splitlines()

    def digests():
        forget()
        return code_digest("jobs:job"), code_digest("data.words")

    # Read from there, but for a line that was cut.
    kept.write_text(f"{first[:-16]}{'0' * 16}\n{second[:-1]}")
    assert digests() == ("0" * 16, other)
    for text in ("COLOURS = []", "SHAPES = []", "COLOURS = SHAPES = []"):
        (package / "data/words.py").write_text(text)
        assert digests()[0] not in ("0" * 16, found)
    assert len([*kept.parent.iterdir()]) == 3
    # A cache that cannot be written is none.
    monkeypatch.setenv("XDG_CACHE_HOME", str(package / "jobs.py"))
    (package / "data/words.py").write_text(FILES["data/words.py"])
    assert digests() == (found, other)


def test_another_folder_and_other_times_are_the_same_code(tmp_path):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from gradatlas.core.digest import code_digest; print(code_digest('statistics.jobs:summarise_gradients'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "workflow", env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == code_digest("statistics.jobs:summarise_gradients")


READ_OR_WRITE = {
    "claims/tables.py": (
        "CLAIMS",
        {
            *("claims.jobs:test_claims", "claims.jobs:write_findings", "figures.jobs:draw_claims"),
            *("figures.jobs:compare_fixed", "page.jobs:write_atlas"),
        },
    ),
    "finetuning/tables.py": (
        "TRAINING",
        {
            *("finetuning.jobs:finetune", "finetuning.jobs:train_on_variant", "figures.jobs:draw_dynamics"),
            "page.jobs:write_manifest",
        },
    ),
    "gradients/tables.py": (
        "TOKENS",
        {"gradients.jobs:measure_gradients", "gradients.jobs:gather_shards", "kernels.jobs:measure_bridge"},
    ),
}


@pytest.mark.parametrize("name", READ_OR_WRITE)
def test_a_tables_columns_count_for_the_jobs_that_write_or_read_it(tmp_path, monkeypatch, name):
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digest, "ROOT", tmp_path / "workflow")
    roots = [f"{room}.jobs:{job.replace('-', '_')}" for job, room in JOBS.items()]

    def digests():
        forget()
        return {root: code_digest(root) for root in roots}

    try:
        before = digests()
        table, jobs = READ_OR_WRITE[name]
        path = tmp_path / "workflow/gradatlas" / name
        head, found, rest = path.read_text().partition(f"\n{table} = Table(")
        assert found
        path.write_text(head + found + rest.replace("pa.schema(\n        [", "pa.schema([('added', pa.int8()),", 1))
        assert {root for root, now in digests().items() if now != before[root]} == jobs
    finally:
        forget()


def test_nothing_of_the_package_is_used_by_text_alone():
    """The digest reads names: a module or function that is looked up by a text would be missed."""
    package = ROOT / "workflow" / "gradatlas"
    # No job uses the names that a Python session imports from the package itself.
    for path in {*package.rglob("*.py")} - {package / "__init__.py"}:
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not {"__import__", "globals", "eval", "exec"} & names and "import_module" not in names | attributes, path
