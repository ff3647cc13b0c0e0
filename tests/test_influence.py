"""SignDelta, LBK and squeezing at matched examples and margins, against numbers worked out by hand."""

import numpy as np
import polars as pl
import pytest

from gradatlas.core.errors import InputError
from gradatlas.statistics import influence, matching


def dynamics_rows(values, *, run="run", tokens=4, examples=20, **columns):
    """Rows of the ``dynamics`` table: `values` by (type, question) the sums at steps 0, 5, 10 ..."""
    rows = []
    for (kind, question), sums in values.items():
        for place, value in enumerate(sums):
            rows.append({
                "run": run, "seed": 0, "step": 5 * place, "examples": examples * place, "split": "train",
                "probe_id": f"{question}/{kind}", "type": kind, "tokens": tokens, "log_prob_sum": float(value),
                "log_prob_mean": value / tokens, "argmax_log_prob": -1.0 * place, "rest_log_mass": -1.0, "entropy": 1.0,
                "a_norm": 10.0, "g_norm": 0.5, "status": "ok",
            } | columns)  # fmt: skip
    return pl.DataFrame(rows)


def training_rows(pulls, pushes):
    return pl.DataFrame({"step": range(1, len(pulls) + 1), "pull": pulls, "push": pushes})


def test_changes_are_per_token_and_their_sum_is_the_end_less_the_start():
    frame = dynamics_rows({("chosen", "a"): [-8, -4, -6], ("chosen", "b"): [-8, -8, 0]})
    deltas = influence.sign_delta(frame.sample(fraction=1, shuffle=True, seed=0))
    assert deltas["change"].to_list() == [1.0, -0.5, 0.0, 2.0]
    assert deltas["before"].to_list() == [0, 5, 0, 5] and deltas["step"].to_list() == [5, 10, 5, 10]
    assert influence.accumulated(deltas)["change"].to_list() == [0.5, 2.0]


def test_probes_that_could_not_be_followed_take_no_part():
    frame = pl.concat(
        [dynamics_rows({("chosen", "a"): [-8, -4]}), dynamics_rows({("chosen", "b"): [-8, -4]}, status="empty")]
    )
    assert influence.sign_delta(frame)["probe_id"].to_list() == ["a/chosen"]


def test_lbk_is_the_squared_change_over_both_squared_norms():
    frame = dynamics_rows({("chosen", "a"): [-8, -4], ("rejected", "a"): [-8, -12]})
    # ||G||^2 = c+^2 * 4 tokens * .5^2 + c-^2 * the same; c the means over the five updates.
    training = training_rows([0.1, 0.2, 0.3, 0.4, 0.5], [-0.3] * 5)
    norm = influence.learnt_norm(frame, training, "chosen", "rejected")
    assert norm["norm"].to_list() == pytest.approx([0.09 + 0.09])
    found = influence.lbk(frame, training, "chosen", "rejected")
    assert found["lbk"].to_list() == pytest.approx([1 / (100 * 0.18)] * 2)
    sft = influence.lbk(frame, training_rows([1.0] * 5, [0.0] * 5), "rejected")
    assert sft["lbk"].to_list() == pytest.approx([1 / 100] * 2)


def test_norms_are_those_before_the_change():
    early = dynamics_rows({("chosen", "a"): [-8]})
    late = dynamics_rows({("chosen", "a"): [0, -4]}, a_norm=99.0, g_norm=99.0).filter(pl.col("step") == 5)
    found = influence.lbk(pl.concat([early, late]), training_rows([1.0] * 5, [0.0] * 5), "chosen")
    assert found["lbk"].to_list() == pytest.approx([1 / 100])


def test_what_is_seen_of_a_change_is_at_most_the_papers():
    generator = np.random.default_rng(0)
    for size in (0.01, 1, 5):
        first = generator.normal(size=(6, 9))
        before, after = (
            z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (first, first + size * generator.normal(size=(6, 9)))
        )
        change = after - before
        own = change[np.arange(6), generator.integers(9, size=6)]
        assert 6 * own.mean() ** 2 <= (own**2).sum() <= (change**2).sum()


def test_a_column_is_divided_by_its_range():
    assert influence.by_column([2.0, -2.0, 0.0]) == [0.5, -0.5, 0.0]
    assert influence.by_column([3.0]) == [0.0]


# --- Matching ---


def preference_run(speed, cost, questions=("a", "b"), steps=5):
    """Margins grow by `speed` a step, the chosen response falls by `cost` for each nat of margin."""
    values = {}
    for question in questions:
        chosen = [-10 - cost * speed * step for step in range(steps)]
        values["chosen", question] = chosen
        values["rejected", question] = [one - 5 - speed * step for step, one in enumerate(chosen)]
    return matching.trajectory_of(dynamics_rows(values))


def test_a_course_is_changes_of_questions_that_have_both_responses():
    course = preference_run(2, 0.5)
    assert course.questions == ("a", "b") and course.examples.tolist() == [0, 20, 40, 60, 80]
    assert course.margin[0].tolist() == [0, 2, 4, 6, 8] and course.fall[0].tolist() == [0, 1, 2, 3, 4]
    assert course.rise[0].tolist() == [0, -0.25, -0.5, -0.75, -1]
    lone = dynamics_rows({("chosen", "a"): [-1, -2], ("rejected", "a"): [-3, -5], ("chosen", "b"): [-1, -2]})
    assert matching.trajectory_of(lone).questions == ("a",)
    with pytest.raises(InputError, match="no question has both"):
        matching.trajectory_of(lone.filter(pl.col("type") == "chosen"))


def test_runs_that_differ_in_speed_alone_differ_at_matched_examples_alone():
    courses = {"slow": preference_run(1, 0.5), "fast": preference_run(4, 0.5)}
    found, levels = matching.squeezing(courses, "examples", 50, 0, "x")
    assert levels[0] == 80 and found[0, :, 0].tolist() == [2, 8]
    found, levels = matching.squeezing(courses, "margin", 50, 0, "x")
    # The slow one's whole margin of 4; the fast one is there after its first step.
    assert levels[0] == 4 and found[0, :, 0].tolist() == [2, 2]
    assert found[0, :, 1].tolist() == [-1, -0.25]


def test_levels_between_evaluations_lie_on_straight_lines_and_unreached_ones_are_missing():
    courses = {"slow": preference_run(1, 1.0), "fast": preference_run(4, 0.5)}
    found, _ = matching.squeezing(courses, "margin", 3, 0, "x", level=6)
    assert np.isnan(found[:, 0]).all() and found[0, 1, 0] == 3
    found, _ = matching.squeezing(courses, "examples", 3, 0, "x", level=30)
    assert found[0, :, 0].tolist() == [1.5, 3]


def test_the_first_crossing_counts_where_a_margin_falls_again():
    paths, values = np.array([[0.0, 4.0, 1.0, 6.0]]), np.array([[[0.0], [8.0], [50.0], [60.0]]])
    assert matching.reached(paths, values, np.array([2.0])).tolist() == [[4.0]]
    assert matching.reached(paths, values, np.array([0.0])).tolist() == [[0.0]]


def test_resamples_are_paired_between_runs():
    generator = np.random.default_rng(0)
    scale = generator.uniform(1, 5, 30)
    curve = np.arange(4.0)
    one = matching.Trajectory(tuple(map(str, range(30))), np.arange(4), *(scale[:, None] * curve for _ in range(3)))
    two = matching.Trajectory(one.questions, one.examples, one.margin, one.fall + curve, one.rise)
    found, _ = matching.squeezing({"one": one, "two": two}, "examples", 200, 0, "x")
    differences = found[:, 1, 0] - found[:, 0, 0]
    assert np.ptp(found[1:, 0, 0]) > 0.5 and np.allclose(differences, 3)


def test_runs_of_other_questions_are_refused():
    courses = {"one": preference_run(1, 1), "two": preference_run(1, 1, questions=("a", "c"))}
    with pytest.raises(InputError, match="other questions"):
        matching.squeezing(courses, "margin", 3, 0, "x")
