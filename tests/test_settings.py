"""Settings stand once: config.yaml and the tables of config/README.md have what the dataclasses of `study` have."""

import dataclasses
import json

import pytest
import yaml

from conftest import ROOT
from gradatlas.core.schemas import checked, meanings, schema_of
from gradatlas.study.settings import Config, Dynamics, Generate
from gradatlas.study.sheets import DatasetMapping, DatasetRow, ModelRow, PairsMapping, RunRow, ScoredRow, SourceRow

README = (ROOT / "config/README.md").read_text()
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def header(sheet):
    return (ROOT / f"config/{sheet}.tsv").read_text().split("\n")[0].split("\t")


def cell(value):
    """A default as it is written in YAML; empty where it is empty."""
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if "\n" not in text else "as in `config.yaml`"


def rows(kind, order, apart=(), prefix=""):
    """A row of the table for each key of a dataclass; keys within a key too, if they have no table `apart`.

    `order`: the keys in order, or a section of config.yaml: what a study leaves out comes from there.
    """
    schema, required, texts = schema_of(kind)["properties"], schema_of(kind)["required"], meanings(kind)
    for name in sorted(schema, key=[*order, *schema].index):
        part, is_section = schema[name], "properties" in schema[name]
        value = order[name] if isinstance(order, dict) else part.get("default")
        default = "required" if value is None and name in required else "" if is_section else cell(value)
        yield f"| `{prefix}{name}` | {default} | {texts[name]} |"
        if is_section and name not in apart:
            inner = {field.name: field.type for field in dataclasses.fields(kind)}[name]
            yield from rows(inner, order[name] if isinstance(order, dict) else (), prefix=f"{prefix}{name}.")


TABLES = {
    "key": (Config, DEFAULT, ("generate", "dynamics")),
    "key of `generate`": (Generate, DEFAULT["generate"], ()),
    "key of `dynamics`": (Dynamics, DEFAULT["dynamics"], ()),
    "column of `models.tsv`": (ModelRow, header("models"), ()),
    "column of `datasets.tsv`": (DatasetRow, header("datasets"), ()),
    "column of `scored.tsv`": (ScoredRow, [*header("scored")[:3], "revision", "name", *header("scored")[3:]], ()),
    "column of `sources.tsv`": (SourceRow, header("sources"), ()),
    "key of a mapping": (DatasetMapping, ["source", "revision"], ()),
    "column of `runs.tsv`": (RunRow, header("runs"), ()),
    "key of a file of pairs": (PairsMapping, ["source", "revision"], ()),
}


def table(title):
    kind, order, apart = TABLES[title]
    return "\n".join([f"| {title} | default | meaning |", "|---|---|---|", *rows(kind, order, apart)])


@pytest.mark.parametrize("title", TABLES)
def test_the_readme_has_every_key_with_its_default_and_meaning(title):
    start = README.index(f"| {title} | default | meaning |")
    # Where they differ, this prints the table to paste.
    assert README[start:].split("\n\n")[0] == table(title)
    assert README.count(f"| {title} | default |") == 1


# Of the miniature study; a config that is read without config.yaml (as a module's) has what the dataclass says.
OWN = {"models", "datasets", "relations", "samples", "controls", "formats", "miniature.accuracy_questions"}
OWN |= {f"dynamics.{key}" for key in ("runs", "steps", "probes", "held_out_probes", "kernels.runs", "evaluations")}
OWN |= {"dynamics.one_step.probes", "dynamics.kernels.intervals"}


def leaves(value, prefix=""):
    for key, each in value.items():
        yield from leaves(each, f"{prefix}{key}.") if isinstance(each, dict) and each else [(f"{prefix}{key}", each)]


def test_the_default_config_writes_every_key_out_with_its_default():
    given = dict(leaves(DEFAULT))
    least = checked({"models": DEFAULT["models"], "datasets": DEFAULT["datasets"]}, Config, "config")
    assert set(given) == set(dict(leaves(least)))
    assert {key for key, value in leaves(least) if value != given[key]} == OWN - {"models", "datasets"}
    assert all(texts for kind, *_ in TABLES.values() for texts in meanings(kind).values())
