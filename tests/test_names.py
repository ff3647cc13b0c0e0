"""Keys that become parts of paths, and sizes: what cannot be meant is refused in one line."""

import re
import shutil
from collections import defaultdict
from itertools import product

import pytest
import yaml

from conftest import ROOT
from gradatlas.core.errors import InputError
from gradatlas.core.schemas import checked
from gradatlas.study import config as study_config
from gradatlas.study.config import fetched_files, read_study
from gradatlas.study.runs import read_plan
from gradatlas.study.settings import RESERVED, Config, Key

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
PAPER = DEFAULT | yaml.safe_load((ROOT / "config/paper.yaml").read_text())
KEYS = {"dataset", "model", "pairs", "run"}


def plain(text):
    """A pattern with one kind of braces: ``{{model}}`` of an f-string and ``{wildcards.model}`` are ``{model}``."""
    return re.sub(r"\{(?:wildcards\.)?(\w+)[^{}]*\}", r"{\1}", text.replace("{{", "{").replace("}}", "}"))


def paths_of_rules():
    """Every path below results/, resources/ and logs/ in the rules' text, its parts that are constants filled in."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    literals = [plain(found) for found in re.findall(r'f?"([^"\s]*/[^"\s]*|\{[^"\s]*)"', text)]
    constants = {}
    for name, line in re.findall(r"^([A-Z_]+) = (.*)$", text, re.MULTILINE):
        values = [plain(each) for each in re.findall(r'f?"([^"\s]*[/{][^"\s]*)"', line)]
        constants |= {name: values} if values else {}
    # kept_work(output, NAME) is results/journal/NAME.
    kept = [f"results/journal/{plain(each)}" for each in re.findall(r'kept_work\([^,]*, f"([^"]*)"\)', text)]
    assert constants["SEED_DIR"] and constants["PART"] and kept
    found, waiting = set(), literals + kept
    while waiting:
        path = waiting.pop()
        constant = next((name for name in re.findall(r"\{(\w+)\}", path) if name in constants), None)
        if constant:
            waiting += [path.replace(f"{{{constant}}}", value) for value in constants[constant]]
            continue
        path = re.sub(r"^.*?(?=(results|resources|logs)/)", "", path)
        if re.match(r"(results|resources|logs)/.", path):
            found.add(path)
    return found


def test_every_name_of_the_workflow_beside_a_key_is_reserved():
    """Two paths are one only where all their parts are: a part with a key and a fixed one, below equal parts."""
    paths = [path.split("/") for path in paths_of_rules()]
    assert len(paths) > 150
    below = defaultdict(set)
    for path in paths:
        for level, part in enumerate(path):
            below[tuple(re.sub(r"\{\w+\}", "{}", above) for above in path[:level])].add(part)
    taken = set()
    for parts in below.values():
        keyed = {part for part in parts if {*re.findall(r"\{(\w+)\}", part)} & KEYS}
        kinds = {(re.sub(r"\{\w+\}", "{}", part), *re.findall(r"\{(\w+)\}", part)[:1]) for part in keyed}
        assert len({shape for shape, _ in kinds}) == len(kinds), "keys of two kinds stand at one place"
        fixed = {part for part in parts if "{" not in part}
        for part, name in product(keyed, fixed):
            pattern = re.sub(r"\\{\w+\\}", "([A-Za-z0-9_]+)", re.escape(part))
            taken |= {group for match in [re.fullmatch(pattern, name)] if match for group in match.groups()}
    assert taken == {*RESERVED}
    readme = (ROOT / "config/README.md").read_text()
    assert all(
        f"`{name}`" in readme.split("none of `claims`")[1].split(" folders of")[0] for name in taken - {"claims"}
    )


REFUSED = [
    *RESERVED, "Claims", "TOYS", "all-datasets", "", "a b", "a\n", "a\nb", "{a}", "a%", "$(id)", "a;b", "`id`", "a'b",
    "..", "a/b", "-a", ".a", "a.b", "ä", "x" * 65, "*",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_is_no_name_is_refused_wherever_keys_are_given(name, tmp_path):
    with pytest.raises(InputError, match="is not a name of letters, digits and _, at most 64"):
        checked(name, Key, "key")
    given = [
        ({"models": [{"model": name, "source": "./tiny"}]}, "config key 'models': 'model'"),
        ({"dynamics": {"runs": ["sft"], "pairs": name}}, "config: 'dynamics.pairs'"),
    ]
    for config, where in given:
        with pytest.raises(InputError, match=re.escape(where)) as caught:
            read_study(DEFAULT | config, ROOT)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    if name.isprintable() and name:
        for sheet, row in (("models", f"{name}\tM\t./tiny"), ("datasets", name), ("runs", name)):
            root = tmp_path / sheet
            shutil.copytree(ROOT / "config", root / "config")
            path = root / f"config/{sheet}.tsv"
            columns = len(path.read_text().split("\n")[0].split("\t"))
            with path.open("a") as file:
                file.write(row + "\t" * (columns - 1 - row.count("\t")) + "\n")
            config = DEFAULT | {"dynamics": {"runs": ["sft"]}}
            with pytest.raises(InputError, match=rf"{sheet}.tsv, line \d+: "):
                read_plan(read_study(config, root).config["dynamics"], root)


def test_names_that_collide_nowhere_are_allowed():
    for name in ("index", "start", "all", "none", "sft", "Mini_2", "x" * 64):
        assert checked(name, Key, "key") == name


def test_keys_of_one_kind_that_differ_in_case_alone_are_refused(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for sheet, old in (("datasets", "mini_taxonomy\t"), ("runs", "sft\t")):
        path = tmp_path / f"config/{sheet}.tsv"
        rows = path.read_text().split("\n")
        row = next(line for line in rows if line.startswith(old))
        path.write_text("\n".join([*rows[:-1], row.replace(old, old.title(), 1), ""]))
    models = [*DEFAULT["models"], {"model": "MINI", "source": "./tiny"}]
    with pytest.raises(InputError, match="config key 'models': 'mini' and 'MINI' differ in case alone"):
        read_study(DEFAULT | {"models": models}, ROOT)
    datasets = ["mini_taxonomy", "Mini_Taxonomy"]
    with pytest.raises(InputError, match="config key 'datasets': 'mini_taxonomy' and 'Mini_Taxonomy' differ in case"):
        read_study(DEFAULT | {"datasets": datasets}, tmp_path)
    config = read_study(DEFAULT | {"dynamics": {"runs": ["sft", "Sft"]}}, tmp_path).config
    with pytest.raises(InputError, match=r"config key 'dynamics\.runs': 'sft' and 'Sft' differ in case alone"):
        read_plan(config["dynamics"], tmp_path)


def test_the_longest_keys_make_file_names_that_fit():
    """255 bytes of a name, with the eight random characters and the dots of a temporary one, and locks."""
    long = {name: "x" * 64 for name in KEYS} | {"seed": str(2**32 - 1), "shard": "1000"}
    for path in paths_of_rules():
        for part in path.split("/"):
            filled = re.sub(r"\{(\w+)\}", lambda found: long.get(found[1], "x" * 20), part)
            assert len(filled) + len("..12345678.lock") <= 255, path


def fetched(tmp_path, *rows):
    """The files fetched for one dataset of these (path, url) in its own sheet."""
    shutil.copytree(ROOT / "config", tmp_path / "config", dirs_exist_ok=True)
    datasets = (ROOT / "config/datasets.tsv").read_text().split("\n")[0].split("\t")
    for number, (path, url) in enumerate(rows):
        cells = {"dataset": f"own{number}", "reader": "published", "url": url}
        with (tmp_path / "config/datasets.tsv").open("a") as sheet:
            sheet.write("\t".join(cells.get(column, "") for column in datasets) + "\n")
        with (tmp_path / "config/sources.tsv").open("a") as sheet:
            sheet.write(f"own{number}\tnatural\tcorrect\t{path}\t{'a' * 64}\n")
    config = DEFAULT | {"datasets": [f"own{number}" for number in range(len(rows))], "relations": ["correct"]}
    return fetched_files(read_study(config, tmp_path), [])


@pytest.mark.parametrize("path", ["../a.json", "/etc/passwd", "a/../../b", "./a", "a//b", "x" * 201, "a/" + "ä" * 101])
def test_a_path_that_leads_out_of_the_folder_or_is_too_long_is_refused(path, tmp_path):
    with pytest.raises(InputError, match=r"not a relative path without '\.\.' and with names of at most 200 bytes"):
        fetched(tmp_path, (path, "https://h/data"))


def test_two_files_of_one_path_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"file 'a/b\.json' of https://g.*: another file .* from https://h"):
        fetched(tmp_path, ("a/b.json", "https://h"), ("a/b.json", "https://g"))


def test_two_paths_that_differ_in_case_alone_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"'a/b\.json' and 'a/B\.json' differ in case alone"):
        fetched(tmp_path, ("a/b.json", "https://h"), ("a/B.json", "https://h"))


PASSWORD = "hunter2-the-password"
WITH_PASSWORD = f"https://someone:{PASSWORD}@host/path"


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"mirror": WITH_PASSWORD}, "config key 'mirror'"),
        ({"generate": {"endpoint": WITH_PASSWORD}}, "config key 'generate.endpoint'"),
        ({"released": {"source": WITH_PASSWORD}}, "config key 'released.source'"),
        ({"toys": {"images": {"source": WITH_PASSWORD}}}, "config key 'toys.images.source'"),
        ({"dynamics": {"rephrases": WITH_PASSWORD}}, "config key 'dynamics.rephrases'"),
    ],
)
def test_a_password_in_an_address_is_refused_and_not_shown(config, where):
    with pytest.raises(InputError, match=re.escape(where)) as caught:
        read_study(DEFAULT | config, ROOT)
    assert "~/.netrc" in str(caught.value) and PASSWORD not in str(caught.value)
    queried = yaml.safe_load(yaml.safe_dump(config).replace(WITH_PASSWORD, f"https://host/x?token={PASSWORD}"))
    with pytest.raises(InputError, match=re.escape(where)) as caught:
        read_study(DEFAULT | queried, ROOT)
    assert "has a query" in str(caught.value) and PASSWORD not in str(caught.value)
    broken = yaml.safe_load(yaml.safe_dump(config).replace(WITH_PASSWORD, '"a\\nb"'))
    with pytest.raises(InputError, match=r"has a line break or another control character|does not match"):
        read_study(DEFAULT | broken, ROOT)


def test_a_password_in_the_address_of_a_dataset_or_of_probes_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config/datasets.tsv, 'own0': 'url': .*\*\*\*@host.*~/.netrc"):
        fetched(tmp_path, ("a.json", WITH_PASSWORD))


# What was refused, and what the error says.
SIZES = {
    "shards that fill memory": ({"shards": 100_000}, "'shards': 100000 is greater than the maximum of 1000"),
    "a fraction's form": ({"samples": 1000.0}, "'samples': 1000.0 is not allowed. Meaning: samples of each dataset"),
    "a whole float": ({"seed": 2.0}, "'seed' is 2.0; write a whole number"),
    "more samples than there are": ({"samples": 10**12}, "'samples': 1000000000000 is not allowed"),
    "true samples": ({"samples": True}, "'samples': True is not allowed"),
    "draws": ({"bootstrap": 10**12}, "'bootstrap': 1000000000000 is greater than the maximum of 100000"),
    "a seed of no generator": ({"seed": 2**32}, "'seed': 4294967296 is greater than the maximum of 4294967295"),
    "a negative seed": ({"seed": -1}, "'seed': -1 is less than the minimum of 0"),
    "a window": ({"max_length": 10**12}, "'max_length': 1000000000000 is greater than the maximum of 1000000000"),
    "not a number": ({"generate": {"temperature": float("nan")}}, "'generate.temperature' is nan; write a number"),
    "infinite": ({"generate": {"input_price": float("inf")}}, "'generate.input_price' is inf; write a number"),
    "questions": ({"miniature": {"questions": 10**9}}, "'miniature.questions': 1000000000 is greater than the maximum"),
    "draws of toys": ({"toys": {"draws": 10**9}}, "'toys.draws': 1000000000 is greater than the maximum of 1000000"),
    "documents": (
        {"dynamics": {"base_documents": 10**9}},
        "'dynamics.base_documents': 1000000000 is greater than the maximum of 1000000",
    ),
    "pairs": ({"dynamics": {"train": 10**8}}, "'dynamics.train': 100000000 is greater than the maximum of 1000000"),
    "seeds": (
        {"dynamics": {"seeds": list(range(10**5))}},
        "'dynamics.seeds': 100000 entries are more than the maximum of 1000",
    ),
    "threads": (
        {"models": [{"model": "m", "source": "./m", "threads": 10**6}]},
        "'threads': 1000000 is greater than the maximum of 1000",
    ),
    "processes": ({"dynamics": {"processes": 10**6}}, "'dynamics.processes': 1000000 is greater than the maximum"),
    "halvings": ({"dynamics": {"one_step": {"halvings": 10**6}}}, "'dynamics.one_step.halvings': 1000000 is greater"),
    "jobs": (
        {"shards": 1000, "models": [{"model": f"m{n}", "source": "./m"} for n in range(5)]},
        "5 models x 6 datasets x 1,000 shards are 30,000 jobs, more than 20,000; lower one of them",
    ),
    "runs": (
        {"dynamics": {"runs": [f"r{n}" for n in range(21)], "seeds": list(range(1000)), "judge": ""}},
        "1 dynamics.models x 21 dynamics.runs x 1,000 dynamics.seeds are 21,000 jobs, more than 20,000",
    ),
    "a long text": ({"formats": ["x" * 10**6]}, "xxx... is not known"),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_cannot_be_meant_is_one_short_line(name):
    config, message = SIZES[name]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_study(DEFAULT | config, ROOT)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_study_for_a_large_cluster_is_read():
    """The study's own, in a hundred parts of each dataset."""
    assert len(read_study(PAPER | {"shards": 100}, ROOT).models) == 12
    assert study_config.MOST_JOBS >= 5 * 20 * 200


@pytest.mark.parametrize(
    "config",
    [
        {"models": [{"model": "m", "source": "./m", "title": "a\ud800"}]},
        {"generate": {"prompt": "\udfff {instruction}"}},
        {"generate": {"prompt": "\x00 {instruction}"}},
        {"mirror": "\x00"},
    ],
)
def test_a_text_that_no_file_can_hold_is_refused(config):
    with pytest.raises(InputError, match=r"config: a text has (half of a character|the character NUL)") as caught:
        read_study(DEFAULT | config, ROOT)
    assert str(caught.value).isascii()
    prompt = {"generate": {"prompt": r"\u0000 {instruction}"}}
    assert read_study(DEFAULT | prompt, ROOT).config["generate"]["prompt"] == r"\u0000 {instruction}"


def test_settings_nested_too_deeply_are_refused():
    deep = {}
    for _ in range(5000):
        deep = {"a": deep}
    with pytest.raises(InputError, match="config: nested too deeply"):
        checked(deep, Config, "config")
