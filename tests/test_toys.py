"""The toys: the paper's numbers, exact statements as properties, kernels and residuals against autograd in float64."""

import json
import math
import os
import shutil
from decimal import Decimal
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.special import log_softmax, softmax

import starts
from conftest import ROOT, call, script, user_error
from conftest import settings as given_settings
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_table
from gradatlas.toys import classifier, clip, influence, phases, squeeze
from gradatlas.toys.images import Images, read_images
from gradatlas.toys.tables import TABLES

LOGITS = st.lists(st.floats(-20, 20), min_size=2, max_size=60).map(np.array)


@pytest.fixture(scope="module")
def cases():
    return {case.name: case for case in squeeze.cases()}


@pytest.mark.parametrize("name", squeeze.PUBLISHED)
def test_the_papers_cases_give_its_numbers(cases, name):
    """To the last digit that is known of each."""
    row = squeeze.case_row(cases[name])
    for key, value in squeeze.PUBLISHED[name].items():
        digits = len(f"{Decimal(str(value)).normalize():e}".split("e")[0].replace(".", ""))
        assert float(f"{row[key]:.{digits}g}") == value, key


def test_the_large_case_follows_in_the_same_stream(cases):
    """Of the 1,000 labels only the likeliest other one rises, to nearly 1; x has 50 features."""
    row = squeeze.case_row(cases["E"])
    assert row["labels"] == 1000 and row["rising"] == 1 and row["winner_after"] > 0.999
    assert cases["E"].square == pytest.approx(56.2, abs=0.05) and cases["A"].square == pytest.approx(10.397, abs=5e-4)


def test_a_step_is_that_of_the_weights_gradient_by_autograd():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, generator=generator, dtype=torch.float64)
    weights = torch.randn(4, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    loss = -(x @ weights).log_softmax(0)[5] + (x @ weights).log_softmax(0)[2]
    (gradient,) = torch.autograd.grad(loss, weights)
    z = (x @ weights).detach().numpy()
    after = (x @ (weights - 0.3 * gradient)).detach().numpy()
    np.testing.assert_allclose(squeeze.stepped(z, 0.3 * float(x @ x), up=5, down=2), after, atol=1e-12)
    (gradient,) = torch.autograd.grad((x @ weights).log_softmax(0)[2], weights)
    after = (x @ (weights - 0.3 * gradient)).detach().numpy()
    np.testing.assert_allclose(squeeze.stepped(z, 0.3 * float(x @ x), down=2), after, atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(LOGITS, st.integers(0, 59), st.floats(1e-4, 200))
@example(np.zeros(7), 3, 1.0)
@example(np.array([30.0, 0, -30, 5]), 0, 50.0)
def test_the_exact_statements_hold_for_any_softmax_label_and_step(z, y, size):
    y %= len(z)
    assert squeeze.statements(z, y, size) == dict.fromkeys(("own", "winner", "monotone", "threshold"), True)


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.integers(0, 59), st.floats(1e-3, 50))
def test_the_closed_form_is_the_stepped_softmax(z, y, size):
    y %= len(z)
    stepped = log_softmax(squeeze.stepped(z, size, down=y)) - log_softmax(z)
    np.testing.assert_allclose(squeeze.log_ratios(z, y, size), stepped, atol=1e-9)


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.integers(0, 59), st.floats(1e-2, 10), st.floats(1.1, 10))
def test_the_threshold_grows_with_the_step_from_its_first_order(z, y, size, factor):
    y %= len(z)
    p = softmax(z)
    first, tau = squeeze.first_order_threshold(p, y), squeeze.threshold(z, y, size)
    assert first - 1e-9 <= tau <= squeeze.threshold(z, y, factor * size) + 1e-9 <= p.max() + 2e-9
    # (1/s) log E exp(s X) = E X + s Var X / 2 + ..., and |X| <= 1.
    assert squeeze.threshold(z, y, 1e-4) == pytest.approx(first, abs=1e-4)


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.integers(0, 59), st.integers(1, 58), st.floats(1e-3, 20))
def test_chosen_and_rejected_in_one_context_squeeze_nothing(z, down, offset, size):
    """The control: all other ratios are equal, and the chosen label rises against each of them."""
    down, up = down % len(z), (down + offset) % len(z)
    if up == down:
        return
    change = log_softmax(squeeze.stepped(z, size, up=up, down=down)) - log_softmax(z)
    others = np.delete(change, [up, down])
    assert np.ptp(others) < 1e-10 if len(others) else True
    assert change[up] > change[down] and (others < change[up]).all() and (others > change[down]).all()


def test_without_the_control_the_same_step_does_squeeze(cases):
    spread = {name: squeeze.case_row(cases[name])["ratio_spread"] for name in ("D", "control")}
    assert spread["control"] < 1e-12 < 1 < spread["D"]


def test_statements_are_judged_and_can_fail(monkeypatch):
    """With a step in the wrong direction, every statement but the trivial fails somewhere."""
    assert squeeze.violations(200, 0) == dict.fromkeys(("own", "winner", "monotone", "threshold"), 0)
    right = squeeze.stepped
    monkeypatch.setattr(squeeze, "stepped", lambda z, size, up=None, down=None: right(z, size, up=down))
    assert all(count > 20 for count in squeeze.violations(200, 0).values())


def test_more_labels_fall_with_peakiness_rarity_and_step():
    found = squeeze.trends(list(squeeze.sweep_rows(10, 0)))
    assert min(found["peakiness"]) > 0.5 and max(found["probability"]) < 0 and min(found["size"]) > 0


def clipped_residual(z, y, old):
    """Of PPO's objective with advantage -1, by autograd."""
    logits = torch.tensor(z, requires_grad=True)
    ratio = (logits.log_softmax(0)[y] - old).exp()
    loss = torch.max(ratio, ratio.clamp(1 - clip.EPSILON, 1 + clip.EPSILON))
    return torch.autograd.grad(loss, logits)[0].numpy()


def dpo_residual(z, y, reference):
    """Of DPO's rejected side, by autograd."""
    logits = torch.tensor(z, requires_grad=True)
    margin = -clip.BETA * (logits.log_softmax(0)[y] - reference)
    return torch.autograd.grad(-torch.nn.functional.logsigmoid(margin), logits)[0].numpy()


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.integers(0, 59), st.floats(-1, 1))
def test_the_coefficients_are_those_of_autograd(z, y, change):
    y %= len(z)
    old = float(log_softmax(z)[y]) - change
    direction = softmax(z) - np.eye(len(z))[y]
    expected = -direction * clip.OBJECTIVES["dpo"](change) * clip.BETA / 2
    np.testing.assert_allclose(expected, dpo_residual(z, y, old), atol=1e-12)
    # At the bound torch splits the gradient between two equal arguments; nobody is there with real numbers.
    if abs(math.exp(change) - (1 - clip.EPSILON)) > 1e-9:
        expected = -direction * clip.OBJECTIVES["clipped"](change)
        np.testing.assert_allclose(expected, clipped_residual(z, y, old), atol=1e-12)


@pytest.mark.parametrize(("ratio", "stopped"), [(0.79, True), (0.81, False), (1.5, False)])
def test_the_clip_stops_only_what_has_gone_far_enough(ratio, stopped):
    assert (clip.OBJECTIVES["clipped"](math.log(ratio)) == 0) == stopped


def test_the_runs_step_along_the_residuals():
    """The table's coefficients are the two residuals' own, scaled to 1 at the start."""
    rows = [row for row in clip.rows() if row["case"] == "C" and row["objective"] != "renewed"]
    z = next(case for case in squeeze.cases() if case.name == "C").z
    start = float(log_softmax(z)[11])
    residuals = {
        "dpo": lambda z: dpo_residual(z, 11, start) * 2 / clip.BETA,
        "clipped": lambda z: clipped_residual(z, 11, start),
    }
    for objective, residual in residuals.items():
        now = z
        own = [row for row in rows if row["objective"] == objective]
        assert own[0]["coefficient"] == pytest.approx(1)
        for row in own[:30]:
            assert row["log_prob"] == pytest.approx(float(log_softmax(now)[11]), abs=1e-10)
            now = now - clip.SIZE * residual(now)


def test_the_clip_squeezes_less_and_renewing_undoes_part_of_it():
    found = clip.squeezed(list(clip.rows()))
    for case in ("C", "D"):
        dpo, clipped, renewed = (found[case, name] for name in clip.OBJECTIVES)
        assert clipped["steps"] < 10 < renewed["steps"] < dpo["steps"] == clip.STEPS
        assert clipped["winner_gain"] < renewed["winner_gain"] < dpo["winner_gain"]
        assert dpo["median_log_ratio"] < renewed["median_log_ratio"] < clipped["median_log_ratio"] < 0
        assert clipped["entropy_loss"] < renewed["entropy_loss"] < dpo["entropy_loss"]


# The classifier


@pytest.fixture(scope="module")
def trained():
    """A classifier after two epochs on 200 digits, and two probes of every class."""
    train, test = read_images("digits").split(200, 0)
    model = [model for _, model in classifier.train(train, 0, 0.1, epochs=2)][-1]
    return model, classifier.in_double(model), classifier.Probes.of(test, 2)


def test_digits_need_no_network_and_split_without_overlap():
    images = read_images("digits")
    assert images.pixels.shape == (1797, 8, 8) and 0 <= images.pixels.min() < images.pixels.max() == 1
    train, test = images.split(2000, 0)
    assert len(train.labels) == len(test.labels) == 898 and len(images.names) == 10
    again, _ = images.split(2000, 0)
    np.testing.assert_array_equal(train.pixels, again.pixels)
    seen = {image.tobytes() for image in train.pixels}
    assert sum(image.tobytes() in seen for image in test.pixels) == 0


@pytest.mark.parametrize("side", [8, 15, 16, 28])
def test_the_network_fits_its_images(side):
    assert classifier.lenet(side, 10)(torch.zeros(2, 1, side, side)).shape == (2, 10)
    if side == 28:
        # The reference notebook's LeNet: 400-60-42-10.
        assert classifier.lenet(28, 10)[7].in_features == 400


def test_kernels_are_products_of_plain_gradients(trained):
    model, weights, probes = trained
    kernels = classifier.kernel(classifier.jacobians(model, weights, probes.pixels))
    double = classifier.lenet(8, 10).double()
    double.load_state_dict(weights)

    def jacobian(image):
        logits = double(image[None])[0]
        rows = [torch.autograd.grad(logit, list(double.parameters()), retain_graph=True) for logit in logits]
        return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])

    for o, u in ((0, 0), (3, 11), (19, 7)):
        expected = jacobian(probes.pixels[o]) @ jacobian(probes.pixels[u]).T
        torch.testing.assert_close(kernels[o, u], expected, rtol=1e-10, atol=1e-12)
    norms = kernels.flatten(2).norm(dim=2)
    torch.testing.assert_close(norms, norms.T)


def test_the_factors_of_an_epoch_are_those_of_explicit_matrices(trained):
    model, weights, probes = trained
    before = phases.state(model, weights, probes)
    later = {name: weight * 1.1 for name, weight in weights.items()}
    now = phases.state(model, later, probes)
    row = phases.phase_row(30, now, before, probes)
    p = now.log_p.exp()
    pairs = [(o, u) for o in range(20) for u in range(20) if o != u]
    explicit = {
        "kernel": [now.kernels[pair].norm() for pair in pairs],
        "change": [(now.kernels[pair] - before.kernels[pair]).norm() for pair in pairs],
        "a": [(torch.eye(10) - each.expand(10, 10)).norm() for each in p],
        "g": [(each - torch.eye(10)[label]).norm() for each, label in zip(p, probes.labels, strict=True)],
        "influence": [
            (
                (torch.eye(10) - p[o].expand(10, 10)) @ now.kernels[o, u] @ (p[u] - torch.eye(10)[probes.labels[u]])
            ).norm()
            for o, u in pairs
        ],
        "cosine": [
            (now.kernels[pair] * before.kernels[pair]).sum() / now.kernels[pair].norm() / before.kernels[pair].norm()
            for pair in pairs
        ],
    }
    assert {name: row[name] for name in explicit} == pytest.approx(
        {name: float(torch.stack(values).mean()) for name, values in explicit.items()}
    )
    assert row["phase"] == "middle" and row["n"] == len(pairs)
    vectors = torch.randn(20, 3, 10, dtype=torch.float64)
    formed = torch.einsum("ndc,ncw->ndw", vectors, classifier.jacobians(model, weights, probes.pixels))
    torch.testing.assert_close(classifier.projected(model, weights, probes.pixels, vectors), formed)


def test_one_step_is_predicted_and_its_remainder_is_second_order(trained):
    model, weights, probes = trained
    kernels = classifier.kernel(classifier.jacobians(model, weights, probes.pixels))
    log_p = classifier.log_probs(model, weights, probes.pixels)
    direction = classifier.predicted(kernels, log_p, probes.labels)
    residuals = []
    for rate in (1e-3, 5e-4, 2.5e-4):
        true = classifier.measured(model, weights, probes, rate)
        residuals.append(float((true - rate * direction).norm()))
        assert float((true * direction).sum() / (direction * direction).sum() / rate) == pytest.approx(1, abs=0.02)
    ratios = [one / half for one, half in pairwise(residuals)]
    assert ratios == pytest.approx([4, 4], rel=0.1)
    # The vector form of A K G, one pair by hand.
    p = log_p[4].exp()
    residual = log_p[9].exp() - torch.nn.functional.one_hot(probes.labels[9], 10)
    by_hand = -(torch.eye(10) - p[None, :]).double() @ kernels[4, 9] @ residual
    torch.testing.assert_close(direction[9, 4], by_hand)


def test_a_true_step_is_that_of_the_optimizer(trained):
    model, weights, probes = trained
    double = classifier.lenet(8, 10).double()
    double.load_state_dict(weights)
    before = double(probes.pixels).log_softmax(-1).detach()
    torch.nn.functional.cross_entropy(double(probes.pixels[5:6]), probes.labels[5:6]).backward()
    torch.optim.SGD(double.parameters(), lr=0.05).step()
    after = double(probes.pixels).log_softmax(-1).detach()
    torch.testing.assert_close(classifier.measured(model, weights, probes, 0.05)[5], after - before)


def test_training_is_seeded_and_leaves_the_stream_of_others_alone():
    train, _ = read_images("digits").split(100, 0)

    def weights(seed):
        return [classifier.in_double(model) for _, model in classifier.train(train, seed, 0.1, epochs=1)][-1]

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = weights(0)
    torch.testing.assert_close(torch.rand(3), expected)
    two, other = weights(0), weights(1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["0.weight"], other["0.weight"])


def square(values, names=("a", "b", "c")):
    return pl.DataFrame(
        [
            {"epoch": 0, "observed": row, "label": column, "value": value}
            for row, line in zip(names, values, strict=True)
            for column, value in zip(names, line, strict=True)
        ]
    )


def test_readings_of_the_tables_on_numbers_made_by_hand():
    predictions = square([[0.7, 0.2, 0.1], [0.33, 0.6, 0.07], [0.05, 0.15, 0.8]])
    assert influence.confused_with(predictions, 0) == {"a": "b", "b": "a", "c": "b"}
    # Off the diagonal, |K_au| orders b above c; so do the predictions of a on b (.33) and c (.05).
    norms = square([[9, 4, 1], [4, 9, 2], [1, 2, 9]]).rename(
        {"observed": "learned", "label": "observed", "value": "norm"}
    )
    found = influence.kernel_follows_confusion(predictions, norms, 0)
    assert found == pytest.approx({"a": 1, "b": 1, "c": -1})
    later = norms.with_columns(epoch=pl.lit(5), norm=-pl.col("norm"))
    ranks = influence.rank_stability(pl.concat([norms.with_columns(pl.col("epoch").cast(pl.Int32)), later]))
    assert set(ranks["last"]) == {-1.0} and ranks["epoch"].to_list() == [0, 0, 0]


def test_asymmetry_is_0_for_symmetric_influence_and_counts_distinct_images_alone():
    def steps(influences):
        """One image a class, and what each does to itself: left out, however much it is."""
        return pl.DataFrame(
            [
                {"epoch": 1, "rate": 0.1, "learned": "abc"[u], "observed": "abc"[o], "measured": float(value),
                 "learned_image": 2 * u + (u == o) * twin, "observed_image": 2 * o}
                for u, row in enumerate(influences)
                for o, value in enumerate(row)
                for twin in range(2 if u == o else 1)
            ]
        )  # fmt: skip

    found = influence.asymmetry(steps([[9, 1, 2], [1, 8, 3], [2, 3, 7]]))
    assert found.to_dicts() == [{"epoch": 1, "rate": 0.1, "value": 0.0, "rank": pytest.approx(1)}]
    # |I - I^T| = sqrt(2) (2, 0, 0), |I + I^T| = sqrt(2) (4, 4, 6) above the diagonal.
    found = influence.asymmetry(steps([[9, 3, 2], [1, 8, 3], [2, 3, 7]]))
    assert found["value"][0] == pytest.approx(2 / math.sqrt(16 + 16 + 36)) and found["rank"][0] < 1


# Images of one's own


SHAPES = ("bar", "cross", "dash")


def pictures(count=42, side=10, classes=3):
    """Bars, crosses and dashes in white on noise."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 60, (count, side, side), dtype=np.uint8)
    labels = np.arange(count) % classes
    for image, label in zip(pixels, labels, strict=True):
        if label < 2:
            image[:, side // 2] = 255
        if label > 0:
            image[side // 2, :] = 255
    return pixels, labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder of PNG files a class, in a path that is no pattern."""
    path = tmp_path_factory.mktemp("images") / "shapes [v2]"
    for number, (image, label) in enumerate(zip(*pictures(), strict=True)):
        (path / SHAPES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / SHAPES[label] / f"{number:03}.png")
    return path


def parquet(path, pixels, labels):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [Image.fromarray(image) for image in pixels], "label": list(labels)}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


def test_a_folder_and_a_parquet_file_hold_the_same_images(folder, tmp_path):
    pixels, labels = pictures()
    one, two = read_images(str(folder)), read_images(str(parquet(tmp_path / "x[1].parquet", pixels, labels)))
    assert one.names == SHAPES and two.names == ("0", "1", "2")
    np.testing.assert_allclose(two.pixels * 255, pixels)
    np.testing.assert_array_equal(two.labels, labels)
    np.testing.assert_allclose(one.pixels[one.labels == 1] * 255, pixels[labels == 1])


def test_rows_of_a_hub_dataset_come_through_the_mirror(folder, tmp_path):
    """As the workflow fetches MNIST: by the `datasets` library, here from a mirror's copy."""
    shutil.copytree(folder, tmp_path / "datasets/someone/shapes")
    path = tmp_path / "fetched.parquet"
    done = call(
        "fetch_dataset", "--dataset", "toys", "--where", "config key toys.images", "--source", "someone/shapes",
        "--settings.split", "train[:40]", "--mirror", tmp_path, "--output", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = read_images(str(path))
    assert len(images.labels) == 40 and images.names == SHAPES and images.pixels.max() == 1
    done = call("fetch_dataset", "--dataset", "toys", "--where", "config key toys.images", "--source", "someone/shapes",
                "--settings.split", "train", "--output", path)  # fmt: skip
    assert "has no revision; give the commit's hash in config key toys.images" in user_error(done)


@pytest.mark.slow
def test_the_workflow_fetches_them_and_learns_them(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "datasets/someone/shapes")
    words = [
        "--cores", "1", "--directory", tmp_path, "--config",
        f"mirror={tmp_path}", "toys={images: {source: someone/shapes, split: train}}", "--",
        "results/dynamics/toys/toy_predictions.parquet",
    ]  # fmt: skip
    done = starts.snakemake(ROOT, words, {**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(read(tmp_path / "results/dynamics/toys", "toy_predictions")["label"]) == {*SHAPES}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p, y - 1), "labels such as -1; give whole numbers from 0"),
        (lambda p, y: (p, y * 2), "no image of class '1'"),
        (lambda p, y: (p, y // 2), "2 classes; give three or more"),
        (lambda p, y: (p[:, :5], y), "give square images of one size"),
        (lambda p, y: ([*p[:-1], p[0][:6, :6]], y), "give square images of one size"),
    ],
    ids=["negative", "gap", "two", "oblong", "sizes"],
)
def test_images_that_cannot_be_used_are_one_line(tmp_path, change, message):
    path = parquet(tmp_path / "x.parquet", *change(*pictures()))
    with pytest.raises(InputError, match=message):
        read_images(str(path))


def test_other_files_are_one_line(tmp_path):
    done = call(
        "train_classifier", "--images", tmp_path / "none", *given_settings(seed=0, rate=0.1), "--output", tmp_path / "o"
    )
    assert "no such file or folder; fix config key toys.images.source" in user_error(done)
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no column 'image', only x"):
        read_images(str(tmp_path / "x.parquet"))
    pl.DataFrame({"image": ["no image"], "label": [0]}).write_parquet(tmp_path / "y.parquet")
    with pytest.raises(InputError, match="is not an image"):
        read_images(str(tmp_path / "y.parquet"))
    (tmp_path / "z.parquet").write_text("nothing")
    with pytest.raises(InputError, match="cannot be read as images"):
        read_images(str(tmp_path / "z.parquet"))
    assert not (tmp_path / "o").exists()


# The commands, end to end


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """All tables, by the commands."""
    folder = tmp_path_factory.mktemp("toys")
    for name, arguments in {
        "squeeze_softmax": (*given_settings(draws=5, seed=0), "--output", folder),
        "clip_objective": ("--output", folder / "toy_clip.parquet"),
        "train_classifier": ("--images", "digits", *given_settings(seed=0, rate=0.01), "--output", folder),
    }.items():
        done = script(name, *arguments, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    return folder


def read(folder, name):
    return pl.from_arrow(read_table(TABLES[name], folder / f"{name}.parquet"))


def test_the_digits_are_learned_and_their_influence_read(tables):
    """What claim F2 stands on, but for 4 and 9, which is MNIST's."""
    predictions, kernels, steps = (read(tables, f"toy_{name}") for name in ("predictions", "kernels", "steps"))
    sums = predictions.group_by("epoch", "observed").agg(pl.col("value").sum())["value"]
    assert sums.to_numpy() == pytest.approx(np.ones(len(sums)))
    accuracy = predictions.filter(pl.col("epoch") == 100)["accuracy"][0]
    assert accuracy > 0.9 > 0.3 > predictions.filter(pl.col("epoch") == 0)["accuracy"][0]
    found = influence.first_order(steps)
    small = found.filter(pl.col("rate") < 0.01)
    assert small["cosine_low"].min() > 0.95 and (small["slope"] - 1).abs().max() < 0.02
    orders = found["order"].drop_nulls()
    assert len(orders) == 6 and orders.min() > 3.8 and orders.max() < 4.4
    ranks = influence.rank_stability(kernels)
    assert ranks.filter(pl.col("epoch") >= influence.BURN_IN)["last"].mean() > 0.8
    assert influence.asymmetry(steps)["value"].min() > 0.01
    assert sum(influence.kernel_follows_confusion(predictions, kernels, 100).values()) > 0
    norms = kernels.join(
        kernels, left_on=["epoch", "learned", "observed"], right_on=["epoch", "observed", "learned"], suffix="_swapped"
    )
    assert norms["norm"].to_numpy() == pytest.approx(norms["norm_swapped"].to_numpy())


def test_the_kernel_settles_and_its_norm_is_estimated(tables):
    followed, norms = read(tables, "toy_phases"), read(tables, "toy_norms")
    assert followed["epoch"].to_list() == list(range(101)) and followed[0, "change"] is None
    changes = followed.with_columns(pl.col("change") / pl.col("kernel")).group_by("phase").agg(pl.col("change").mean())
    early, middle, late = (changes.filter(phase=name)["change"][0] for name in phases.PHASES)
    assert early > middle > late
    apart = (norms["estimate"] ** 2 - norms["norm"] ** 2) / (2 * norms["estimate"] * norms["error"])
    assert len(norms) == 3 * 20**2 and (apart.abs() < 2).mean() > 0.8
    assert abs(float(np.log(norms["estimate"] / norms["norm"]).mean())) < 0.05


def test_the_same_seed_gives_the_same_bytes(tables, tmp_path):
    for name, arguments in {
        "squeeze_softmax": (*given_settings(draws=5, seed=0), "--output", tmp_path),
        "clip_objective": ("--output", tmp_path / "toy_clip.parquet"),
    }.items():
        assert call(name, *arguments).returncode == 0
    for path in tmp_path.glob("*.parquet"):
        assert path.read_bytes() == (tables / path.name).read_bytes(), path.name
    assert len(list(tmp_path.glob("*.parquet"))) == 4


def test_all_figures_are_drawn_and_listed(tables, tmp_path):
    done = call("draw_toys", "--tables", tables, "--output", tmp_path / "f", "--formats", "svg", "vl.json")
    assert done.returncode == 0, done.stderr
    index = json.loads((tmp_path / "f/index.json").read_text())
    assert [(each["toy"], each["figure"]) for each in index["figures"]] == [
        ("squeeze", "steps"), ("squeeze", "sweeps"), ("influence", "confusion"), ("influence", "ranks"),
        ("influence", "kernels"), ("influence", "phases"), ("influence", "norms"), ("influence", "change"),
        ("influence", "prediction"), ("clip", "steps"),
    ]  # fmt: skip
    for each in index["figures"]:
        assert each["width"] > 300 and each["height"] > 200
        text = (tmp_path / "f" / each["files"]["svg"]).read_text()
        # The chart says its finding; titles are broken into lines.
        assert each["title"].split(";")[0].split(" ")[0].replace("'", "&#39;") in text and "NaN" not in text
    again = call("draw_toys", "--tables", tables, "--output", tmp_path / "g", "--formats", "svg", "vl.json")
    assert again.returncode == 0
    for path in (tmp_path / "f").iterdir():
        assert path.read_bytes() == (tmp_path / "g" / path.name).read_bytes()


def test_every_chart_is_valid_vega_lite(tables):
    from gradatlas.toys.charts import draw

    frames = {path.stem: pl.from_arrow(read_table(TABLES[path.stem], path)) for path in tables.glob("*.parquet")}
    for _, _, heading, chart in draw.figures(frames):
        assert heading.title
        chart.to_dict(validate=True)


def test_a_missing_table_is_one_line(tmp_path):
    done = call("draw_toys", "--tables", tmp_path, "--output", tmp_path / "f", "--formats", "svg")
    assert "toy_squeeze.parquet: no such file" in user_error(done)


def test_a_world_of_three_classes_runs_through(folder, tmp_path):
    """Another number of classes and pixels than the digits'."""
    images = read_images(str(folder))
    assert isinstance(images, Images)
    tables = influence.track_training(images, 0, 0.01)
    assert {len(rows) > 0 for rows in tables.values()} == {True}
    assert {row["learned"] for row in tables["toy_steps"]} == {*SHAPES}
