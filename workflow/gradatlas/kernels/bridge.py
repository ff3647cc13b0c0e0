"""The first study's gradients along a finetuning run on its own responses."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from gradatlas.core.command import progress
from gradatlas.core.digest import code_digest
from gradatlas.core.errors import InputError
from gradatlas.core.tables import read_metadata, read_table, write_table
from gradatlas.data.tables import RESPONSES
from gradatlas.finetuning.bridge import read_places
from gradatlas.finetuning.finetune import stages
from gradatlas.finetuning.tables import PROBES
from gradatlas.gradients.measure import measure
from gradatlas.gradients.settings import Settings
from gradatlas.gradients.tables import SAMPLES, SPECTRA
from gradatlas.kernels.tables import BRIDGE

_KEYS = ["sample_id", "variant", "relation"]


def measure_along(
    init: str,
    folder: str | Path,
    responses: str | Path,
    output: str | Path,
    journal: str | Path,
    settings: Settings,
    *,
    kinds: Sequence[str],
    seed: int,
) -> None:
    """Write the ``bridge`` table: nuclear norms of every layer's gradients at each stage of a run.

    `folder`: of `train_on_variant`; its held-out questions are measured. `kinds`: VARIANT:RELATION of responses.
    `journal`: a folder for finished batches. `InputError` where a kind has no response to a held-out question.
    """
    places = read_places(folder)
    probes = read_table(PROBES, Path(folder) / "probes.parquet").to_pylist()
    held_out = {row["sources"][0] for row in probes if row["split"] == "held_out"}
    wanted = {tuple(kind.split(":")) for kind in kinds}
    rows = [row for row in read_table(RESPONSES, responses).to_pylist()
            if row["sample_id"] in held_out and (row["variant"], row["relation"]) in wanted]  # fmt: skip
    if missing := wanted - {(row["variant"], row["relation"]) for row in rows if row["status"] == "ok"}:
        raise InputError(f"{responses}: no response {':'.join(sorted(missing)[0])} to a held-out question; change "
                         "config key bridge.measured")  # fmt: skip
    found = []
    with TemporaryDirectory() as temporary:
        paths = {name: str(Path(temporary) / f"{name}.parquet") for name in ("responses", "samples", "spectra")}
        write_table(RESPONSES, rows, paths["responses"], read_metadata(responses, RESPONSES))
        for step, card in stages(init, folder):
            progress(f"SFT on {places['variant']}: step {step}")
            measure(card, paths["responses"], paths["samples"], paths["spectra"], settings, journal=str(journal))
            samples, spectra = (pl.from_arrow(read_table(kind, paths[kind.name])) for kind in (SAMPLES, SPECTRA))
            own = samples.filter(pl.col("status") == "ok").select(*_KEYS, "loss", "response_tokens")
            found.append(
                spectra.select(*_KEYS, "layer", "projection", "nuclear_norm")
                .join(own, on=_KEYS, maintain_order="left")
                .with_columns(pl.lit(f"sft_{places['variant']}").alias("run"), pl.lit(seed).alias("seed"),
                              pl.lit(step).alias("step"))
            )  # fmt: skip
    table = pl.concat(found).select(BRIDGE.names).to_arrow().cast(BRIDGE.schema)
    facts = {"places": {axis: places[axis] for axis in ("updates", "tokens")}, "variant": places["variant"]}
    facts |= {"projections": list(settings.projections), "code": code_digest(f"{__name__}:measure_along")}
    write_table(BRIDGE, table, output, facts)
