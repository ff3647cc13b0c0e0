"""Written responses: an endpoint that fails, stalls and talks nonsense, a local model, what is kept."""

import json
import os
import threading
import time

import polars as pl
import pytest
import yaml

from conftest import ROOT, call, script, settings, user_error
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata
from gradatlas.data.generation.completions import Completion, complete_all
from gradatlas.data.generation.endpoint import Endpoint, RateLimit
from gradatlas.data.made_up.miniature import held_out
from gradatlas.data.responses.detailed import _reason, stated_by, write_detailed
from gradatlas.data.responses.reading import written_facts
from gradatlas.data.samples import Sample
from gradatlas.study.config import read_study
from loopback import Loopback, closed_port
from test_mapping import add_row, responses, write
from test_workflow import SECRETS, clone, holders, snakemake

KEY = "sk-a-key-that-nobody-may-see"
DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", KEY)


class Chat(Loopback):
    """An OpenAI-compatible server: the answer to a prompt is `reply(prompt)`.

    `plan` lists what the next requests meet, each once: a status, ``"cut"``, ``"stall"``, bytes (a body of 200), a
    dict (headers of a 429), or None (an answer).
    """

    def __init__(self, reply=lambda prompt: f"We think.\nThe final answer is {prompt[-1]}"):
        super().__init__()
        self.reply, self.plan, self.prompts, self.keys = reply, [], [], []
        self.turn = threading.Lock()

    def __enter__(self):
        super().__enter__()
        handler = self.server.RequestHandlerClass
        handler.do_POST = lambda request: self.post(request)
        return self

    def post(self, request):
        asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with self.turn:
            self.prompts.append(asked["messages"][-1]["content"])
            self.keys.append(request.headers.get("Authorization"))
            trouble = self.plan.pop(0) if self.plan else None
        self.asked = asked
        if isinstance(trouble, int):
            body = json.dumps({"error": {"message": f"trouble; the key was {KEY}"}}).encode()
            return self.answer(request, trouble, body, [("Content-Type", "application/json")])
        if isinstance(trouble, dict):
            return self.answer(request, 429, b"{}", trouble.items())
        body = trouble if isinstance(trouble, bytes) else self.body(asked["messages"][-1]["content"])
        kind = None if isinstance(trouble, bytes) else trouble
        return self.answer(request, 200, body, [("Content-Type", "application/json")], kind)

    def body(self, prompt):
        text = self.reply(prompt)
        finish = "stop"
        if isinstance(text, tuple):
            text, finish = text
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return json.dumps(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        ).encode()


@pytest.fixture
def chat():
    with Chat() as running:
        yield running


def endpoint(chat, **options):
    url = chat if isinstance(chat, str) else f"{chat.url}/v1"
    options = {
        "max_tokens": 50, "temperature": 0, "requests_per_minute": 60_000, "attempts": 4, "timeout": 5, "parallel": 2,
        "pause": 0.01,
    } | options  # fmt: skip
    return Endpoint(url, "m", "TEST_KEY", **options)


# --- the endpoint ----------------------------------------------------------------------------------------------------


def test_an_answer(chat):
    answer = endpoint(chat).complete("What is 7")
    assert answer == Completion("We think.\nThe final answer is 7", True)
    assert chat.keys == [f"Bearer {KEY}"]
    assert chat.asked["model"] == "m" and chat.asked["max_tokens"] == 50 and chat.asked["temperature"] == 0


@pytest.mark.parametrize(
    ("plan", "phrase"),
    [
        ([500, 503], "HTTP 503"),
        (["cut"], "no connection, or it was interrupted"),
        (["stall"], "no answer within 2 s"),
        (["drip"], "no answer within 2 s"),
        ([b"<html>busy</html>"], "not a chat completion"),
        ([b'{"choices": []}'], "not a chat completion"),
        ([b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": null}}]}'], "the answer has no text"),
        ([b"[1]", b"null"], "not a chat completion"),
    ],
)
def test_troubles_that_pass_are_tried_again(chat, plan, phrase, capsys):
    chat.plan = list(plan)
    # Long enough for an answer on a busy machine.
    assert endpoint(chat, timeout=2).complete("What is 7").text.endswith("7")
    assert len(chat.prompts) == len(plan) + 1
    log = capsys.readouterr().err
    assert phrase in log and f"try {len(plan) + 1} in" in log


def test_a_server_is_waited_for_as_long_as_it_asks(chat):
    chat.plan = [{"Retry-After": "0.6"}]
    begun = time.monotonic()
    endpoint(chat).complete("What is 7")
    assert time.monotonic() - begun >= 0.6


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (500, "HTTP 500 for model 'm'"),
        ("stall", "no answer within 1 s, 3 times"),
        (b"nonsense", "not a chat completion (.*), 3 times"),
    ],
)
def test_a_server_that_never_recovers(chat, trouble, message):
    chat.plan = [trouble] * 3
    with pytest.raises(InputError, match=message) as caught:
        endpoint(chat, attempts=3, timeout=1).complete("What is 7")
    assert len(chat.prompts) == 3 and "answers so far are kept" in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "environment variable TEST_KEY is refused"),
        (403, "the key in TEST_KEY may not use model 'm'"),
        (404, "HTTP 404 for model 'm'"),
        (400, "HTTP 400 for model 'm'"),
    ],
)
def test_refusals_are_answers_and_hide_the_key(chat, status, message, capsys):
    chat.plan = [status]
    with pytest.raises(InputError, match=message) as caught:
        endpoint(chat).complete("What is 7")
    assert len(chat.prompts) == 1
    assert KEY not in str(caught.value) + capsys.readouterr().err


@pytest.mark.parametrize("length", range(100, 200, 10))
def test_no_part_of_the_key_is_left_where_the_text_is_cut(chat, length):
    body = json.dumps({"error": {"message": f"{'x' * length} {KEY}"}}).encode()
    chat.post = lambda request: chat.answer(request, 400, body, [("Content-Type", "application/json")])
    with pytest.raises(InputError, match="HTTP 400") as caught:
        endpoint(chat).complete("What is 7")
    assert KEY[:8] not in str(caught.value)


def test_a_missing_key_is_named_and_one_that_is_not_needed_is_not_missed(chat, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    assert endpoint(chat).complete("What is 7").finished
    chat.plan = [401]
    with pytest.raises(InputError, match="environment variable TEST_KEY is not set"):
        endpoint(chat).complete("What is 7")


def test_nobody_there():
    with pytest.raises(InputError, match="no connection, or it was interrupted, 2 times"):
        endpoint(f"{closed_port()}/v1", attempts=2).complete("What is 7")


def test_the_rate_is_limited():
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(round(seconds, 6))

    limit = RateLimit(0.5, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        limit.wait()
    now[0] = 10.0
    limit.wait()
    assert slept == [0.5, 1.0]


# --- what is kept ----------------------------------------------------------------------------------------------------

PROMPTS = {f"s{i}": f"Question {i}" for i in range(6)}


def test_answers_are_asked_for_once(chat, tmp_path):
    kept = tmp_path / "kept.jsonl"
    first = complete_all(PROMPTS, endpoint(chat), kept)
    assert list(first) == list(PROMPTS) and first["s3"].text.endswith("3") and len(chat.prompts) == 6
    assert complete_all(PROMPTS, endpoint(chat), kept) == first and len(chat.prompts) == 6
    # One prompt edited: one question more. Another model: all of them.
    complete_all({**PROMPTS, "s3": "Question 9"}, endpoint(chat), kept)
    assert len(chat.prompts) == 7
    complete_all(PROMPTS, endpoint(chat, max_tokens=51), kept)
    assert len(chat.prompts) == 13
    assert KEY not in kept.read_text()


def test_a_failure_keeps_what_was_answered_and_the_next_run_goes_on(chat, tmp_path):
    kept = tmp_path / "kept.jsonl"
    chat.plan = [None, None, None, 400]
    with pytest.raises(InputError, match="HTTP 400"):
        complete_all(PROMPTS, endpoint(chat, parallel=1), kept)
    assert len(kept.read_text().splitlines()) == 3
    with kept.open("ab") as file:
        file.write(b'{"key": "torn')
    assert len(complete_all(PROMPTS, endpoint(chat), kept)) == 6
    assert len(chat.prompts) == 4 + 3 and b"torn" not in kept.read_bytes()


def test_equal_prompts_are_one_question(chat, tmp_path):
    complete_all({"a": "Same 1", "b": "Same 1"}, endpoint(chat), tmp_path / "kept.jsonl")
    assert len(chat.prompts) == 1


def test_a_damaged_line_and_a_second_writer_are_errors(chat, tmp_path):
    kept = tmp_path / "kept.jsonl"
    kept.write_text('{"key": "x"}\n')
    with pytest.raises(InputError, match=r"kept.jsonl, row 0: damaged"):
        complete_all(PROMPTS, endpoint(chat), kept)
    kept.unlink()
    tried = threading.Event()
    slow = Chat(lambda prompt: tried.wait(60) and "x")
    with slow:
        other = threading.Thread(target=complete_all, args=({"a": "1"}, endpoint(slow), kept))
        other.start()
        while not slow.prompts:
            time.sleep(0.01)
        with pytest.raises(InputError, match="another process is writing"):
            complete_all(PROMPTS, endpoint(chat), kept)
        tried.set()
        other.join()


# --- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("So.\nThe final answer is 12.", "12"),
        ("**Final Answer:** $\\boxed{1{,}000}$", "1{,}000"),
        ("The final answer is 3. No: the final answer is **(B)**.", "(B)"),
        ("So \\boxed{7}.", "7"),
        ("It is seven.", None),
        ("We check the final answer carefully. So \\boxed{7}.", "7"),
        ("The final answer is \\(12\\).", "12"),
        ("The final answer is: \\( \\frac{1}{2} \\)", "\\frac{1}{2}"),
        ("The final answer is ", None),
    ],
)
def test_the_answer_as_models_state_it(text, stated):
    assert stated_by(text) == stated


@pytest.mark.parametrize(
    ("stated", "gold", "right"),
    [
        ("B", "(B)", True),
        ("A", "(B)", False),
        ("B) 23", "(B)", True),
        ("12 apples", "12", True),
        ("12 square feet", "12", True),
        ("13 apples", "12", False),
        ("12 million", "12", False),
        ("12 or 13", "12", False),
        ("12 apples", "apples", False),
    ],
)
def test_answers_as_models_spell_them(stated, gold, right):
    sample = Sample("0", {}, gold, {}, {"(A)": "22", "(B)": "23"} if gold == "(B)" else {})
    assert (_reason(sample, Completion("", True), stated) == "") is right


def test_only_right_and_whole_responses_are_accepted(tmp_path, capsys):
    replies = {
        "Q0": "So.\nThe final answer is 1,000.",
        "Q1": "The final answer is 2",
        "Q2": "Well.",
        "Q3": ("The final answer is 3", "length"),
        "Q4": "The final answer is (A) 22.",
        "Q5": "Final answer: 22",
    }
    options = {"(A)": "22", "(B)": "23"}
    gold = ["1000", "1", "2", "3", "(A)", "(A)"]
    samples = [Sample(str(i), {"none": f"Q{i}"}, gold[i], {}, options if i > 3 else {}) for i in range(6)]
    with Chat(lambda prompt: replies[prompt.split()[-1]]) as chat:
        write_detailed("d", samples, "Ask: {instruction}", endpoint(chat), tmp_path / "k", tmp_path / "out.jsonl")
    *lines, last = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert list(last) == ["checksum"]
    reasons = ["", "another answer", "no final answer", "cut off", "", ""]
    assert [line["reason"] for line in lines] == reasons
    assert [line["status"] for line in lines] == ["rejected" if reason else "accepted" for reason in reasons]
    assert lines[0]["prompt"] == "Ask: Q0" and lines[0]["writer"]["model"] == "m" and KEY not in json.dumps(lines)
    assert written_facts(tmp_path / "out.jsonl")["prompt"] == "Ask: {instruction}"
    log = capsys.readouterr().err
    assert "d: 3 of 6 responses rejected (50.0%); another answer: 1; cut off: 1; no final answer: 1" in log


# --- through the workflow --------------------------------------------------------------------------------------------

ROWS = [{"q": f"What is {i} + 0?", "a": str(i)} for i in range(8)]
MAPPING = {"source": "rows.jsonl", "columns": {"instruction": "q", "answer": "a"}}


def right_but_for_one(prompt):
    number = int(prompt.split("What is ")[1].split()[0])
    return f"Zero adds nothing.\nThe final answer is {number + (number == 5)}"


@pytest.mark.slow
def test_detailed_responses_through_the_workflow(tmp_path):
    """Opt-in: written, checked, built; the rejected sample is left out of all variants; a second run asks nothing."""
    folder = clone(tmp_path / "clone")
    write(folder / "rows.jsonl", ROWS)
    add_row(folder, "none")
    (folder / "config/mappings/mine.yaml").write_text(yaml.safe_dump(MAPPING))
    with Chat(right_but_for_one) as chat:
        chat.plan = [503, "cut"]
        place = f"endpoint: '{chat.url}/v1', key_variable: MY_OWN_KEY"
        generate = f"generate={{datasets: [mine], model: m, {place}, requests_per_minute: 60000}}"
        arguments = ["--cores", 1, "--config", "datasets=[mine]", "models=[mini]", generate, "--", "responses"]
        planned = snakemake(folder, "-n", *arguments)
        assert "generate_detailed" in planned.output and not chat.prompts
        done = snakemake(folder, *arguments, env={"MY_OWN_KEY": KEY})
        assert done.returncode == 0, done.output[-3000:]
        asked = len(chat.prompts)
        # The server gets the key, and no file does.
        assert set(chat.keys) == {f"Bearer {KEY}"}
        assert holders(folder, [KEY, *SECRETS.values()]) == [] and KEY not in done.output
        assert asked == 8 + 2
        assert "Nothing to be done" in snakemake(folder, *arguments).output
        (folder / "results/generated/mine.jsonl").unlink()
        assert snakemake(folder, *arguments).returncode == 0 and len(chat.prompts) == asked
    found = responses(folder / "results/responses/mine.parquet")
    assert len(found) == 14 and ("5", "none") not in found and ("5", "detailed") not in found
    assert found["4", "detailed"] == "Zero adds nothing.\nThe final answer is 4"
    assert (
        "1 of 8 responses rejected (12.5%); another answer: 1"
        in (folder / "logs/generate_detailed/mine.log").read_text()
    )
    assert (
        "1 of 8 samples have no accepted Detailed response; left out"
        in (folder / "logs/build_responses/mine.log").read_text()
    )
    facts = read_metadata(folder / "results/responses/mine.parquet")["detailed"]
    assert facts["writer"]["model"] == "m" and (facts["accepted"], facts["rejected"]) == (7, 1)
    deranged = pl.read_parquet(folder / "results/responses/mine.parquet").filter(pl.col("relation") == "derangement")
    assert deranged["label_equals_gold"].sum() == 0


@pytest.mark.slow
def test_a_local_model_writes_through_the_workflow(tmp_path):
    """The committed miniature on questions of its own kind, which it mostly gets right step by step."""
    folder = clone(tmp_path / "clone")
    samples = held_out("mini_arithmetic", 6, 0)
    write(folder / "rows.jsonl", [{"q": sample.instructions["detailed"], "a": sample.gold} for sample in samples])
    add_row(folder, "none")
    (folder / "config/mappings/mine.yaml").write_text(yaml.safe_dump(MAPPING))
    generate = "generate={datasets: [mine], model: mini, max_tokens: 160, prompt: '{instruction}'}"
    done = snakemake(folder, "--cores", 1, "--config", "datasets=[mine]", "models=[mini]", generate, "--", "responses")
    assert done.returncode == 0, done.output[-3000:]
    found = responses(folder / "results/responses/mine.parquet")
    detailed = {sample_id: response for (sample_id, variant), response in found.items() if variant == "detailed"}
    assert detailed and all(
        response.endswith(f"The final answer is {found[sample_id, 'none']}") for sample_id, response in detailed.items()
    )
    facts = read_metadata(folder / "results/responses/mine.parquet")["detailed"]
    assert facts["writer"]["model"] == "mini" and len(facts["writer"]["digest"]) == 64
    assert facts["accepted"] + facts["rejected"] == 6


def detailed_of_two(tmp_path, **writer):
    """The arguments of generate_detailed for two rows."""
    write(tmp_path / "rows.jsonl", ROWS[:2])
    mapping = {**MAPPING, "split": "train", "separator": "", "boxed": False, "remove": "", "answers": {}}
    chosen = settings(reader="mapped", mapping=mapping, seed=0, prompt="{instruction}", writer=writer)
    places = ("--kept", tmp_path / "kept.jsonl", "--output", tmp_path / "out.jsonl")
    return "--dataset", "mine", "--sources", tmp_path / "rows.jsonl", *places, *chosen


def test_the_key_goes_through_the_script_and_stays_out_of_its_files(chat, tmp_path):
    arguments = [
        *detailed_of_two(tmp_path, name="m", endpoint=f"{chat.url}/v1", max_tokens=20), "--key-variable", "TEST_KEY",
        "--requests-per-minute", 60000, "--pause", 0.01, "--attempts", 2,
    ]  # fmt: skip
    chat.plan = [500]
    done = script("generate_detailed", *arguments, env={"TEST_KEY": KEY})
    assert done.returncode == 0, done.stderr
    assert set(chat.keys) == {f"Bearer {KEY}"}
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text()
    assert KEY not in done.stderr
    chat.plan = [401]
    (tmp_path / "kept.jsonl").unlink()
    (tmp_path / "out.jsonl").unlink()
    error = user_error(script("generate_detailed", *arguments, env={"TEST_KEY": KEY}))
    assert "TEST_KEY is refused" in error and KEY not in error and not (tmp_path / "out.jsonl").exists()


def test_a_local_model_writes_too(miniature, tmp_path):
    """An untrained model's answers are rejected one and all, and kept: the second run loads nothing to ask."""
    arguments = [*detailed_of_two(tmp_path, name="mini", max_tokens=8, device="cpu"), "--model", miniature]
    done = call("generate_detailed", *arguments)
    assert done.returncode == 0, done.stderr
    *lines, last = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert list(last) == ["checksum"]
    assert [line["status"] for line in lines] == ["rejected"] * 2 and lines[0]["writer"]["model"] == "mini"
    before = (tmp_path / "out.jsonl").read_bytes()
    os.truncate(tmp_path / "kept.jsonl", len((tmp_path / "kept.jsonl").read_bytes()) - 5)
    done = call("generate_detailed", *arguments)
    assert "1 answers to request, 1 found" in done.stderr and (tmp_path / "out.jsonl").read_bytes() == before


WRONG = {
    "not chosen": ({"datasets": ["aqua"], "model": "m"}, "'aqua' is not among the datasets chosen"),
    "has its own": ({"datasets": ["gsm8k"], "model": "m"}, "'gsm8k' has Detailed responses already"),
    "procedural": ({"datasets": ["mini_taxonomy"], "model": "m"}, "'mini_taxonomy' has Detailed responses already"),
    "no model": ({"datasets": ["gsm8k_hub"]}, "'generate.model' is empty"),
    "an unknown local model": (
        {"datasets": ["gsm8k_hub"], "model": "minni"},
        "unknown name 'minni': did you mean 'mini'",
    ),
    "no place for the question": ({"prompt": "Think."}, r"has no \{instruction\}"),
    "an unknown key": ({"api_key": "x"}, "unknown key 'generate.api_key'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_config_mistakes_are_one_line(name):
    change, message = WRONG[name]
    config = DEFAULT | {"datasets": ["gsm8k", "gsm8k_hub", "mini_taxonomy"], "generate": change}
    with pytest.raises(InputError, match=message):
        read_study(config, ROOT)


def test_a_local_writer_asks_in_the_form_that_it_is_given():
    """The instructed miniature has a chat template; the form is a part of what kept answers belong to."""
    from gradatlas.models.local_writer import LocalModel

    texts = {}
    for form in ("", "plain", "chat"):
        writer = LocalModel(
            str(ROOT / "resources/miniature/instruct"), "m", device="cpu", dtype="float32", max_tokens=8, prompt=form
        )
        texts[form] = writer.complete("How many eggs are left?").text
        assert writer.facts.get("prompt", "") == form
    assert texts[""] == texts["chat"] != texts["plain"]
