"""The journal: nothing committed is lost, a torn tail is tolerated, the living are left alone."""

import multiprocessing
import os
import signal

import pytest

from workflow.lib.errors import InputError
from workflow.lib.gradients.journal import Journal, Record

ONE, TWO = Record(1.5, "ok", 0.5, (1.0, 2.0)), Record(None, "nonfinite")


def segment(folder):
    return next(folder.glob("*.frames"))


def filled(folder, *batches):
    journal = Journal(folder)
    for keys in batches:
        journal.commit(keys, [Record(1.5, "ok", 0.5, (1.0, 2.0))] * len(keys))
    journal.close()


def test_reads_back_what_any_writer_committed(tmp_path):
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.commit(["a"], [ONE])
    second.commit(["b"], [TWO])
    # Both are still open: a living writer blocks no reader.
    found = Journal(tmp_path).read()
    assert found["a"].values == [1.0, 2.0] and found["a"].loss == 1.5
    assert found["b"].status == "nonfinite" and found["b"].loss is None


def test_every_prefix_of_a_segment_is_readable(tmp_path):
    filled(tmp_path, ["a"], ["b"])
    path = segment(tmp_path)
    whole = path.read_bytes()
    counts = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        counts.append(len(Journal(tmp_path).read()))
    assert counts == sorted(counts) and set(counts) == {0, 1, 2}


def test_damage_is_an_error_wherever_it_strikes(tmp_path):
    """No flipped byte gives another number, and none passes for a torn tail."""
    filled(tmp_path, ["a"], ["b"])
    path = segment(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"\.frames: damaged at byte \d+; delete this file"):
            Journal(tmp_path).read()


def test_a_file_that_is_no_segment_is_named(tmp_path):
    (tmp_path / "x.frames").write_text("not a journal's segment at all, whatever it may be")
    with pytest.raises(InputError, match=r"x\.frames.*delete this file"):
        Journal(tmp_path).read()


def test_prune_keeps_what_is_wanted(tmp_path):
    filled(tmp_path, ["a"])
    filled(tmp_path, ["b", "c"])
    assert Journal(tmp_path).prune({"c"}) == 1
    assert set(Journal(tmp_path).read()) == {"b", "c"}


def _write_and_wait(folder, ready):
    journal = Journal(folder)
    journal.commit(["old"], [ONE])
    ready.set()
    signal.pause()


def test_prune_spares_a_living_writer_and_takes_a_killed_one(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=_write_and_wait, args=(tmp_path, ready))
    writer.start()
    assert ready.wait(30)
    assert Journal(tmp_path).prune(set()) == 0
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert set(Journal(tmp_path).read()) == {"old"}
    assert Journal(tmp_path).prune(set()) == 1
    assert not list(tmp_path.glob("*.frames"))
