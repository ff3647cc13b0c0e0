"""The command line of jobs: settings as JSON or option by option, and mistakes as one line."""

import json

import pytest

from conftest import call, user_error
from gradatlas.core import jobs

MEASURE = ("measure_gradients", "--model", "m", "--responses", "r", "--samples", "s", "--spectra", "s")
CLIP = ("clip_objective", "--output", "x.parquet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("summarise_gradients", "--datset", "x"), "--dataset"),
        (("no_such_job",), "Unknown command"),
        ((*CLIP, "--colour", "red"), "Unknown option: --colour"),
        (("squeeze_softmax", "--output", "o", "--settings", '{"draws": "many"}'), "many"),
        (("squeeze_softmax", "--output", "o", "--settings", '{"drawz": 3}'), "drawz"),
        ((*MEASURE, "--settings", '{"truncation": "right"}'), 'Invalid value "right" for settings.truncation. Choose'),
        ((*MEASURE, "--settings", '{"max_length": 1}'), "settings: 'max_length': 1 is less than the minimum of 2"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(words, message):
    assert message in user_error(call(*words))


@pytest.mark.parametrize(("missing", "message"), [("polars", "package polars is not installed"), ("gradatlas.x", None)])
def test_a_package_that_is_not_installed_is_named(missing, message, monkeypatch, capsys):
    """A missing module of this package is a fault of the program, and keeps its traceback."""

    def fail(*_, **__):
        raise ImportError("no module") from ModuleNotFoundError(name=missing)

    monkeypatch.setattr(jobs, "application", lambda *_: fail)
    monkeypatch.setattr(jobs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit if message else ImportError):
        jobs.run({}, ["x"])
    assert (message or "") in capsys.readouterr().err


NESTED = {"seed": 0, "train": 1, "held_out": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("not json", "--settings: not JSON"),
        ({**NESTED, "train": 1.5}, "--settings: 'train' is 1.5; write a whole number"),
        ({**NESTED, "trian": 1}, "--settings: unknown key 'trian': did you mean 'train'?"),
        ({**NESTED, "train": 0}, "--settings: 'train': 0 is less than the minimum of 1"),
        ({**NESTED, "rejected_rarity": 2}, "'rejected_rarity': 2 is greater than the maximum of 1"),
    ],
    ids=str,
)
def test_nested_settings_are_checked_to_the_last_key(value, message, tmp_path):
    text = value if isinstance(value, str) else json.dumps(value)
    done = call("build_pairs", "--name", "mini_qa", "--output", tmp_path / "p.parquet", "--settings", text)
    assert message in user_error(done) and not list(tmp_path.iterdir())


def test_an_unknown_key_deep_within_is_named():
    runs = [{"name": "a", "steps": 1, "baselines": [], "colour": 1}]
    text = json.dumps({"judge": "oracle", "runs": runs})
    given = ("--generations", "g", "--scores", "s", "--pairs", "p", "--kept", "k", "--output", "o")
    error = user_error(call("judge_generations", *given, "--settings", text))
    assert "--settings: unknown key 'runs.0.colour'" in error


def test_settings_are_options_too_and_say_the_same(miniature, responses, tmp_path):
    made = []
    for name, words in (
        ("json", ("--settings", json.dumps({"limit": 2, "projections": ["v"], "device": "cpu"}))),
        ("options", ("--limit", 2, "--projections", "v", "--device", "cpu")),
    ):
        out = tmp_path / f"{name}.parquet"
        given = ("--model", miniature, "--responses", responses, "--samples", tmp_path / "s.parquet", "--spectra", out)
        done = call("measure_gradients", *given, *words)
        assert done.returncode == 0, done.stderr
        made.append(out.read_bytes())
    assert made[0] == made[1]
