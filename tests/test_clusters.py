"""What docs/clusters.md states: Grid Engine for real, a run without a network, the image."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import starts
from conftest import ROOT, needs_shared

PAGE = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")

# In namespaces of its own, with copies of the folders that the packages made: nothing outlives it, no port is taken.
GRID_ENGINE = r"""
set -e
cd "$1"
ip link set lo up
hostname node
echo 127.0.0.1 node localhost > hosts
mount --bind hosts /etc/hosts
for folder in lib spool; do
    cp -a /var/$folder/gridengine $folder
    mount --bind $folder /var/$folder/gridengine
done
export SGE_ROOT=/var/lib/gridengine SGE_CELL=default
echo node > $SGE_ROOT/default/common/act_qmaster
sge_qmaster
timeout 30 sh -c 'until qconf -sh > /dev/null 2>&1; do sleep 0.1; done'
qconf -sconf | sed 's/^\(min_.id\) .*/\1 0/; s/^login_shells .*/login_shells none/
    s/accounting=true/& accounting_flush_time=00:00:01/' > global
qconf -Mconf global
qconf -ssconf | sed 's/^schedule_interval .*/schedule_interval 0:0:1/; s/^\(flush_\w*_sec\) .*/\1 1/' > scheduler
qconf -Msconf scheduler
(qconf -sc; echo "gpu gpu INT <= YES YES 0 0") > complexes
qconf -Mc complexes
printf '%s\n' "pe_name smp" "slots 99" "user_lists NONE" "xuser_lists NONE" "start_proc_args NONE" \
    "stop_proc_args NONE" 'allocation_rule $pe_slots' "control_slaves FALSE" "job_is_first_task TRUE" \
    "urgency_slots min" "accounting_summary FALSE" "qsort_args NONE" > environment
qconf -Ap environment
qconf -as node
sge_execd
printf 'group_name @nodes\nhostlist node\n' > group
qconf -Ahgrp group
qconf -sq | sed 's/^qname .*/qname all.q/; s/^hostlist .*/hostlist @nodes/; s/^slots .*/slots 4/
    s/^pe_list .*/pe_list smp/; s/^load_thresholds .*/load_thresholds NONE/' > queue
qconf -Aq queue
qconf -mattr exechost complex_values gpu=2 node
shift
"$@"
"""

# Deletes the first job of a rule once, while it runs.
DELETE_ONE = r"""
until job=$(qstat -s r -r | grep -B1 "Full jobname: *measure_gradients" | awk 'NR == 1 { print $1 }') && [ "$job" ]; do
    sleep 0.2
done
qdel $job
"""


def block(start):
    """The block of code of the page that starts so."""
    return re.search(rf"```\w+\n({re.escape(start)}.*?)```", PAGE, re.DOTALL)[1]


needs_grid_engine = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("sge_qmaster"),
    reason="needs root, and Debian's gridengine-master, gridengine-exec and gridengine-client",
)


@pytest.mark.slow
@needs_grid_engine
def test_a_study_through_grid_engine(tmp_path):
    """The profile of the page, with two models on GPUs; one of their jobs is deleted while it runs."""
    profile = tmp_path / "sge"
    profile.mkdir()
    (profile / "config.yaml").write_text(block("executor: cluster-generic"))
    (profile / "status.sh").write_text(block("#!/bin/sh\n# State of a job"))
    (profile / "status.sh").chmod(0o755)
    gpus = [f"GPU-of-test-{os.getpid()}-{at}" for at in range(2)]
    tool = tmp_path / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n" + "\n".join(f'echo "GPU {at}: A100 (UUID: {each})"' for at, each in enumerate(gpus)))
    tool.chmod(0o755)
    model = f"{{model: %s, source: {ROOT / 'resources/miniature/base'}, scope: none, device: auto, threads: 1}}"
    run = [
        starts.PROGRAM, "--profile", profile, "--snakefile", ROOT / "Snakefile", "--directory", tmp_path / "study",
        "--set-resources", "measure_gradients:mem_mb=1000",
        "--config", f"models=[{model % 'one'}, {model % 'two'}]", "datasets=[mini_arithmetic]", "samples=1",
        "--", "gradients",
    ]  # fmt: skip
    whole = f"({DELETE_ONE}) > deleted & \"$@\"; code=$?; sleep 2; qacct -j '*' > accounting; exit $code"
    done = subprocess.run(
        ["unshare", "-m", "-u", "-p", "-n", "--fork", "--mount-proc", "--kill-child", "timeout", "300",
         "bash", "-c", GRID_ENGINE, "bash", tmp_path, "bash", "-c", whole, "bash", *map(str, run)],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        | {"PATH": f"{tool.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    for gpu in gpus:
        Path(f"/tmp/gradatlas-gpu-{os.getuid()}/{gpu}.lock").unlink(missing_ok=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # From the scheduler's own record.
    records = [
        dict(re.findall(r"^(\w+) +(.*?) *$", text, re.MULTILINE))
        for text in (tmp_path / "accounting").read_text().split("=" * 62)[1:]
    ]
    ended = [(each["jobname"], each["exit_status"].split()[0]) for each in records]
    codes = [code for name, code in ended if name == "measure_gradients"]
    assert sorted(codes) == ["0", "0", "137"] and "gradients" not in dict(ended), ended
    for name in ("one", "two"):
        log = (tmp_path / f"study/logs/measure_gradients/{name}/mini_arithmetic.log").read_text()
        assert re.search(f"^GPU ({'|'.join(gpus)}) of {','.join(gpus)} leased$", log, re.MULTILINE), log


@pytest.mark.slow
@needs_shared("paper_data")
def test_a_mirror_is_enough_without_a_network(tmp_path):
    """The study's own data, and a model of the hub, from a folder: in a namespace that has no network."""
    mirror = tmp_path / "mirror"
    shutil.copytree(ROOT.parent / "shared/paper_data", mirror, symlinks=True)
    shutil.copytree(ROOT / "resources/miniature/base", mirror / "models/org/tiny")
    model = f"{{model: tiny, source: org/tiny, revision: {'0' * 40}, kind: base, device: cpu, threads: 1}}"
    done = subprocess.run(
        ["unshare", "-r", "-n", starts.PROGRAM, "--cores", "2", "--directory", tmp_path / "study", "--configfile",
         "config/paper.yaml", "--config", f"mirror={mirror}", f"models=[{model}]", "datasets=[strategyqa]",
         "--", "responses", "models"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "study/results/responses/strategyqa.parquet").exists()
    assert str(mirror / "models/org/tiny") in (tmp_path / "study/resources/models/tiny.json").read_text()


def test_the_image_is_installed_as_the_readme_installs():
    steps = [line[4:] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("RUN ")]
    first = re.search(r"```sh\n(python3 -m venv .*)\n```", (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    assert [step.replace(" --no-cache-dir", "") for step in steps] == [first.rpartition(" && ")[0]]
