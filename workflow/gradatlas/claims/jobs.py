"""The jobs of the claims, one a rule."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gradatlas.core.jobs import Json
from gradatlas.statistics.jobs import BootstrapSettings


@dataclass(frozen=True)
class Model:
    """A model that is measured, as its sheet describes it."""

    model: str
    """its name in the tables"""
    kind: str
    """base, instruct or random"""
    partner: str = ""
    """the base model of an instructed or random one"""
    seed: int | None = None
    """of a miniature, or of an untrained network's weights"""


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings(BootstrapSettings):
    """What decides the evidence of one dataset."""

    models: list[Model]
    """the models; of several untrained partners the first is compared with"""
    task: str = "other"
    """the dataset's kind of task"""


@dataclass(frozen=True, kw_only=True)
class DynamicsEvidenceSettings(BootstrapSettings):
    """What decides the evidence of one finetuned model."""

    kind: str = "base"
    """the model's kind: base, instruct or random"""
    seeds: list[int]
    """of training"""
    runs: list[dict[str, Any]]
    """the rows of config/runs.tsv of each seed's runs"""


@dataclass(frozen=True, kw_only=True)
class QualityEvidenceSettings(BootstrapSettings):
    """What decides the evidence on data quality."""

    models: dict[str, dict[str, Any]]
    """by model, its kind, seed and untrained network (empty: none is measured)"""
    scored: list[str]
    """MODEL/DATASET of each table of scores"""
    pairs: dict[str, dict[str, Any]]
    """by pair, `high` and `low` (dataset and its groups, `*`: all), and the column of `quality` (empty: none)"""


@dataclass(frozen=True)
class VerdictSettings:
    """What verdicts state beside the evidence."""

    prompts: dict[str, str] = field(default_factory=dict)
    """the form of a model's prompts, plain or chat, by model"""


@dataclass(frozen=True)
class FindingSettings:
    """What decides the words of the findings."""

    titles: dict[str, str] = field(default_factory=dict)
    """names of models and datasets to readers, by key"""
    measured: list[tuple[str, str]] = field(default_factory=list)
    """model and dataset, by key, of everything that is measured; one without a claim is listed"""


def gather_evidence(
    *,
    dataset: str,
    samples: list[Path],
    spectra: list[Path],
    claims: Path,
    output: Path,
    accuracy: Path | None = None,
    settings: Json[EvidenceSettings],
) -> None:
    """Measure what every claim is about on one dataset: numbers, intervals and p-values of all models, no verdict yet.

    Parameters
    ----------
    dataset
        the dataset's name
    samples
        samples tables, one a model; also of datasets compared with
    spectra
        spectra tables, in the same order
    claims
        the claims' sheet (.tsv)
    output
        evidence table to write (.parquet)
    accuracy
        which of two responses is likelier, to write (.parquet)
    """
    from gradatlas.claims.gather import gather
    from gradatlas.claims.sheet import GradientClaim, read_claims
    from gradatlas.core.errors import check_same_number

    check_same_number(samples=samples, spectra=spectra)
    models = {each.model: asdict(each) for each in settings.models}
    rows = read_claims(GradientClaim, claims)
    gather(dataset, samples, spectra, models, rows, output, settings.draws, settings.seed, accuracy, settings.task)


def gather_dynamics_evidence(
    *,
    pairs: str,
    model: str,
    runs: list[Path],
    one_step: Sequence[Path] = (),
    generation_scores: Sequence[Path] = (),
    judgements: Sequence[Path] = (),
    budget: Sequence[Path] = (),
    kernels: Sequence[Path] = (),
    entanglement: Sequence[Path] = (),
    claims: Path,
    output: Path,
    settings: Json[DynamicsEvidenceSettings],
) -> None:
    """Measure what every claim of the second study is about, on one model's runs of all seeds: no verdict yet.

    Parameters
    ----------
    pairs
        the pairs' name
    model
        the model's name
    runs
        dynamics tables: all runs of the first seed, then of the next; seeds and runs as in the settings
    one_step
        one_step tables, one a seed, or none
    generation_scores
        generation_scores tables, one a seed, or none
    judgements
        judgements tables, one a seed, or none
    budget
        budget tables of the runs that have one: all of the first seed, then as many of the next, or none
    kernels
        kernels tables of the same runs, or none
    entanglement
        entanglement tables of the same runs, or none
    claims
        the claims' sheet (.tsv)
    output
        evidence table to write (.parquet)
    """
    from gradatlas.claims.dynamics.gather import gather_runs
    from gradatlas.claims.sheet import DynamicsClaim, read_claims
    from gradatlas.core.errors import InputError

    rows_of = {row["run"]: row for row in settings.runs}
    names, seeds = list(rows_of), settings.seeds
    if not runs or len(runs) != len(seeds) * len(names):
        wanted = f"{len(seeds)} seeds of {len(names)} runs"
        raise InputError(f"--runs names {len(runs)} tables, the settings {wanted}; give one of each, and one at least")
    groups = {seed: {"runs": dict(zip(names, runs[at * len(names) :], strict=False))} for at, seed in enumerate(seeds)}
    beside = {"one_step": one_step, "generation_scores": generation_scores, "judgements": judgements}
    for table, paths in beside.items():
        if paths and len(paths) != len(seeds):
            option = table.replace("_", "-")
            raise InputError(f"--{option} names {len(paths)} tables, settings.seeds {len(seeds)}; give one a seed")
        for seed, path in zip(seeds, paths, strict=False):
            groups[seed][table] = path
    for table, paths in {"budget": budget, "kernels": kernels, "entanglement": entanglement}.items():
        each = len(paths) // len(seeds)
        if each * len(seeds) != len(paths):
            raise InputError(f"--{table} names {len(paths)} tables for {len(seeds)} seeds; give as many of each seed")
        for at, seed in enumerate(seeds):
            groups[seed][table] = paths[at * each : (at + 1) * each]
    rows = read_claims(DynamicsClaim, claims)
    gather_runs(pairs, model, settings.kind, groups, rows_of, rows, output, settings.draws, settings.seed)


@dataclass(frozen=True)
class BridgeEvidenceSettings(BootstrapSettings):
    """What the evidence on runs on the first study's variants depends on besides the tables."""

    kind: str = "base"
    """base, instruct or random"""
    seeds: tuple[int, ...] = (0,)
    """seeds of the runs, in the order of the tables"""


def gather_bridge_evidence(
    *,
    dataset: str,
    model: str,
    bridge: list[Path],
    kernels: list[Path],
    claims: Path,
    output: Path,
    settings: Json[BridgeEvidenceSettings],
) -> None:
    """Measure what the claims on SFT on the first study's variants are about, of one model: no verdict yet.

    Parameters
    ----------
    dataset
        the dataset's name
    model
        the model's name
    bridge
        bridge tables: all runs of the first seed, then as many of the next
    kernels
        kernels tables, in the same order
    claims
        the claims' sheet (.tsv)
    output
        evidence table to write (.parquet)
    """
    from gradatlas.claims.dynamics.bridge import gather_bridge
    from gradatlas.claims.sheet import DynamicsClaim, read_claims
    from gradatlas.core.errors import check_same_number

    check_same_number(bridge=bridge, kernels=kernels)
    each = len(bridge) // len(settings.seeds)
    groups = {
        seed: {name: paths[at * each : (at + 1) * each] for name, paths in (("bridge", bridge), ("kernels", kernels))}
        for at, seed in enumerate(settings.seeds)
    }
    rows = read_claims(DynamicsClaim, claims)
    gather_bridge(dataset, model, settings.kind, groups, rows, output, settings.draws, settings.seed)


def gather_toy_evidence(*, toys: Path, images: str = "digits", claims: Path, output: Path) -> None:
    """Measure what the claims on toys, and on the losses' formulas, are about: no verdict yet.

    Parameters
    ----------
    toys
        folder with toy_*.parquet
    images
        the source of the classifier's images (toys.images.source)
    claims
        the claims' sheet (.tsv)
    output
        evidence table to write (.parquet)
    """
    from gradatlas.claims.dynamics.gather import gather_toys
    from gradatlas.claims.sheet import DynamicsClaim, read_claims

    gather_toys(toys, read_claims(DynamicsClaim, claims), output, images)


def gather_quality_evidence(
    *,
    scores: Sequence[Path] = (),
    per_sample: Sequence[Path] = (),
    cosines: Sequence[Path] = (),
    claims: Path,
    output: Path,
    settings: Json[QualityEvidenceSettings],
) -> None:
    """Measure what every claim on data quality is about, on all models: no verdict yet.

    Parameters
    ----------
    scores
        scores.parquet of gradatlas score, each with `measured` beside it, in the order of settings.scored
    per_sample
        per_sample tables of summarise-gradients
    cosines
        cosines tables of measure-gradients
    claims
        the claims' sheet (.tsv)
    output
        evidence table to write (.parquet)
    """
    from gradatlas.claims.quality.gather import gather_quality
    from gradatlas.claims.sheet import QualityClaim, read_claims
    from gradatlas.core.jobs import by_name

    tables = by_name(settings.scored, scores, "--scores")
    named = {tuple(name.split("/")): path for name, path in tables.items()}
    rows = read_claims(QualityClaim, claims)
    gather_quality(
        named, settings.pairs, per_sample, cosines, settings.models, rows, output, settings.draws, settings.seed
    )


def test_claims(
    *,
    evidence: list[Path],
    accuracy: Sequence[Path] = (),
    claims: Path,
    dynamics_claims: Path | None = None,
    quality_claims: Path | None = None,
    output: Path,
    settings: VerdictSettings = VerdictSettings(),
) -> None:
    """Reach the verdicts: all evidence of a run, corrected for the number of tests, beside what the models can do.

    Parameters
    ----------
    evidence
        tables of gather-evidence, gather-dynamics-evidence and gather-toy-evidence
    accuracy
        tables of measure-accuracy and of gather-evidence
    claims
        the claims' sheet (.tsv)
    dynamics_claims
        the second study's sheet
    quality_claims
        the third study's sheet
    output
        stem of the files to write: .parquet, .csv and .json
    """
    from gradatlas.claims import ability
    from gradatlas.claims.sheet import DynamicsClaim, GradientClaim, QualityClaim, read_claims
    from gradatlas.claims.verdicts import VERDICTS, decide
    from gradatlas.core.command import progress

    rows = read_claims(GradientClaim, claims)
    if dynamics_claims:
        rows = [*rows, *read_claims(DynamicsClaim, dynamics_claims)]
    if quality_claims:
        rows = [*rows, *read_claims(QualityClaim, quality_claims)]
    table = decide(evidence, rows, ability.abilities(ability.read(accuracy)), output, settings.prompts)
    counts = ", ".join(f"{(table['verdict'] == verdict).sum()} {verdict}" for verdict in VERDICTS)
    progress(f"{table.height} tests of {table['claim'].n_unique()} claims: {counts}")


def write_findings(
    *,
    claims: Path | None = None,
    figure: Path | None = None,
    output: Path,
    settings: Json[FindingSettings] = FindingSettings(),
) -> None:
    """Write what was found in plain words: at most six findings a study, and three sentences above them.

    Parameters
    ----------
    claims
        the claims table (.parquet); none where nothing has claims
    figure
        the figures of the findings, which the Markdown shows: FIGURE without `_STUDY` and `.svg`
    output
        stem of the files to write: .json and .md
    """
    import polars as pl

    from gradatlas.claims import sentences
    from gradatlas.claims.tables import CLAIMS
    from gradatlas.core.command import progress
    from gradatlas.core.tables import read_table

    table = pl.from_arrow(read_table(CLAIMS, claims)) if claims else None
    found = sentences.write_findings(table, output, settings.titles, settings.measured, figure)
    progress(f"{len(found)} findings: {output}.md, {output}.json")


def write_accuracy(*, accuracy: list[Path], csv: Path, markdown: Path) -> None:
    """Gather all models' accuracy tables into one: CSV (every digit) and Markdown (two digits).

    Parameters
    ----------
    accuracy
        tables of measure-accuracy
    csv
        tidy table to write
    markdown
        readable table to write
    """
    from gradatlas.claims import ability
    from gradatlas.core.command import progress

    ability.write_accuracy(accuracy, csv, markdown)
    progress(f"{len(accuracy)} models: {csv}, {markdown}")
