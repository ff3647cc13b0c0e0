"""The graph of jobs of a large study: its time and memory grow with its jobs, not faster."""

import pytest

from benchmarks.graph import STUDIES, dry_run, first_job, make


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return make(tmp_path_factory.mktemp("large"), 20, 200)


def test_a_dry_run_of_20_models_on_200_datasets(large, tmp_path):
    """CPU time, which another load on the machine changes little: 10 s where it was written, of at most 60."""
    found, small = dry_run(large), dry_run(make(tmp_path, 5, 50))
    assert found["jobs"] > 20 * 200 and small["jobs"] > 5 * 50
    assert found["cpu_s"] < 45 and found["mb"] < 1000
    # Ten times the jobs; half of the smaller study's time is Snakemake's own start.
    assert found["cpu_s"] < 8 * small["cpu_s"]


def test_the_first_job_of_20_models_on_200_datasets_starts_soon(large):
    found = first_job(large)
    assert found["cpu_s"] < 45 and found["mb"] < 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1 model, 20 datasets, 200 shards", "second study: 3 models, 5 seeds, 20 runs"])
def test_other_large_studies(name, tmp_path):
    models, datasets, config = STUDIES[name]
    found = dry_run(make(tmp_path, models, datasets, **config))
    assert found["jobs"] > 300 and found["cpu_s"] < 45 and found["mb"] < 1000
