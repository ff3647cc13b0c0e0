"""The journal: nothing committed is lost, a torn tail is tolerated, the living are left alone."""

import multiprocessing
import os
import signal

import pytest

from gradatlas.core.errors import InputError
from gradatlas.gradients.journal import Journal, Record

ONE, TWO = Record(1.5, "ok", 0.5, (1.0, 2.0)), Record(None, "nonfinite")


def segment(folder):
    return next(folder.glob("*.frames"))


def filled(folder, *batches, maker=""):
    journal = Journal(folder, maker)
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


@pytest.mark.slow
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


def test_zeros_at_the_end_are_a_torn_frame(tmp_path):
    """A file may have grown before the power failed, its content not yet on the disk."""
    filled(tmp_path, ["a"], ["b"])
    path = segment(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(4096))
    assert set(Journal(tmp_path).read()) == {"a", "b"}
    second = whole.rindex(b"GAJ3")
    # From wherever on: nothing of the frame, half of its head, half of its body, all but Arrow's end of stream.
    for at in (second, second + 10, second + 30, second + 500, len(whole) - 8):
        path.write_bytes(whole[:at] + bytes(len(whole) - at))
        assert set(Journal(tmp_path).read()) == {"a"}, at
    path.write_bytes(whole[:100] + bytes(second - 100) + whole[second:])
    with pytest.raises(InputError, match="damaged at byte 0"):
        Journal(tmp_path).read()


def test_other_codes_segments_are_set_aside_and_come_back_with_the_code(tmp_path):
    filled(tmp_path, ["a"], maker="new")
    filled(tmp_path, ["b"], ["c"], maker="new")
    filled(tmp_path, ["d"], maker="old")
    (tmp_path / "empty.frames").touch()
    assert Journal(tmp_path, "new").set_aside() == 1
    assert set(Journal(tmp_path, "new").read()) == {"a", "b", "c"}
    assert len(list(tmp_path.glob("*.frames"))) == 2 and len(list(tmp_path.rglob("*.frames"))) == 3
    # The edit taken back: nothing is lost, and the newer code's work waits in turn.
    assert "d" in Journal(tmp_path, "old").read()
    assert Journal(tmp_path, "old").set_aside() == 2
    assert set(Journal(tmp_path, "old").read()) == {"d"}
    assert set(Journal(tmp_path, "new").read()) == {"a", "b", "c"}
    assert not (tmp_path / "empty.frames").exists()


def _write_and_wait(folder, ready):
    journal = Journal(folder)
    journal.commit(["old"], [ONE])
    ready.set()
    signal.pause()


def test_a_living_writers_segment_stays_and_a_killed_ones_is_set_aside(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=_write_and_wait, args=(tmp_path, ready))
    writer.start()
    assert ready.wait(30)
    assert Journal(tmp_path, "another").set_aside() == 0
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert set(Journal(tmp_path).read()) == {"old"}
    assert Journal(tmp_path, "another").set_aside() == 1
    assert not list(tmp_path.glob("*.frames")) and len(list(tmp_path.glob("*/*.frames"))) == 1
