"""The untrained twin of a hub model: its config and tokenizer, with weights as its code initialises them."""

import json
import shutil
from pathlib import Path

from gradatlas.core.command import progress
from gradatlas.core.errors import InputError
from gradatlas.core.files import write_sums, write_text
from gradatlas.models.snapshots import found, shape_files


def write_untrained(
    model: str,
    source: str,
    revision: str,
    seed: int,
    downloaded: str | Path,
    output: str | Path,
    trust_remote_code: bool = False,
) -> None:
    """Write the folder `output`: config and tokenizer of the hub model `source`, unchanged, and seeded weights.

    The files are those of `downloaded`, which `snapshots.find` wrote. The model's code initialises the weights, on the
    CPU and in float32, whatever the device; `untrained.json` records source, revision and seed. Raises `InputError`
    where a file is missing, and where no causal language model can be built from the config.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = found(downloaded)
    files = shape_files(folder)
    output = Path(output)
    made = output.with_name(f".{output.name}.part")
    shutil.rmtree(made, ignore_errors=True)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise InputError(
            f"{model}: no causal language model can be built from {folder / 'config.json'} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:240]}); choose another model"
        ) from None
    # One file, whatever its size, so that the card's digest does not depend on sharding.
    network.save_pretrained(made, max_shard_size="1000GB")
    for file in files:
        shutil.copyfile(file, made / file.name)
    facts = {"source": source, "revision": revision, "seed": seed, "torch": torch.__version__}
    write_text(made / "untrained.json", json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(output, ignore_errors=True)
    made.rename(output)
    write_sums(output, "write_untrained")
    progress(f"{output}: {sum(p.numel() for p in network.parameters()):,} parameters, untrained (seed {seed})")
