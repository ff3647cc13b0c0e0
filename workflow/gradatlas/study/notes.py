"""What a user should read before the first job starts: what cannot be fetched, and how to go on with the rest."""

import os
from collections.abc import Sequence

from gradatlas.study.config import Study, source_keys
from gradatlas.study.relations import GOLD_VARIANT
from gradatlas.study.sources import is_address, is_hub_id


def notes(study: Study, places: Sequence[str]) -> list[str]:
    """Lines to print. `places`: the folders that may hold published files, the last one the mirror."""
    mirror = study.config["mirror"]
    if not mirror:
        return _unpinned(study) if study.config["gradients"] == "measured" else []
    if is_address(mirror):
        return []
    missing = [] if os.path.isdir(places[-1]) else [f"warning: mirror {mirror}: no such folder; fix config key mirror"]
    return missing + missing_files(study, mirror, places)


def _unpinned(study: Study) -> list[str]:
    rows = {**study.learners, **study.judges, **study.models}
    names = [name for name, row in rows.items() if is_hub_id(row["source"]) and not row["revision"]]
    pin = f"gradatlas pin --model {' '.join(names)}"
    return [f"warning: no revision in config/models.tsv, will not be fetched before: {pin}"] if names else []


def missing_files(study: Study, mirror: str, places: Sequence[str]) -> list[str]:
    """Which datasets the mirror has no files of, and the config that continues with the others."""
    wanted = {name: source_keys(study, name) for name, row in study.datasets.items() if row["url"]}
    missing = {
        name: [
            key for key in keys if not any(os.path.isfile(os.path.join(p, study.files[key]["path"])) for p in places)
        ]
        for name, keys in wanted.items()
    }
    if not any(missing.values()):
        return []
    # Variants whose files are all there, where the gold answers are there too.
    kept = {name: study.variants(name) for name in study.datasets}
    for name, keys in missing.items():
        answers = GOLD_VARIANT.get(study.datasets[name]["gold"])
        needed = {(name, answers, "correct")} if answers else set()
        gone = {key[1] for key in keys}
        kept[name] = [variant for variant in kept[name] if not needed & set(keys) and variant not in gone]
    kept = {name: variants for name, variants in kept.items() if variants}
    counts = ", ".join(f"{name} ({len(keys)} of {len(wanted[name])})" for name, keys in missing.items() if keys)
    line = f"warning: mirror {mirror} lacks files of {counts}: add them"
    if kept:
        parts = ", ".join(f"{name}: [{','.join(vs)}]" for name, vs in kept.items() if vs != study.variants(name))
        line += f"; or narrow with --config 'datasets=[{','.join(kept)}]'" + (
            f" 'variants={{{parts}}}'" if parts else ""
        )
    return [line]
