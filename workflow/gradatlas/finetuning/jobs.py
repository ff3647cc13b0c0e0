"""The jobs of finetuning, one per rule: probes, runs, and the scores and judgements of their free responses."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gradatlas.core.jobs import Json, RequestOptions, by_name
from gradatlas.finetuning.settings import FinetuneSettings, GenerateSettings, RunSettings
from gradatlas.models.writers import REQUESTS, Requests, WriterSettings, writer_of
from gradatlas.study.settings import BridgeTraining, Sampling
from gradatlas.study.sheets import Loading

#: From a model and its encoder, the rows of the ``probes`` table.
MakeProbes = Callable[[Any, Any], list[dict]]


@dataclass(frozen=True, kw_only=True)
class Probed:
    """Which prompts are probed."""

    train: int
    """probed prompts that are trained on"""
    held_out: int
    """probed prompts that are never trained on"""
    seed: int = 0
    """seed of the random draws"""


@dataclass(frozen=True, kw_only=True)
class RephraseSettings(Probed):
    """What decides which texts are written, and by whom."""

    writer: WriterSettings = field(default_factory=WriterSettings)
    """the model that writes"""


@dataclass(frozen=True, kw_only=True)
class ProbesSettings(Probed, Sampling, Loading):
    """What decides which responses are probes."""

    rephrases: bool = True
    """whether there are rephrases; if not, the types of probes that need them are left out"""
    file_sums: tuple[str, ...] = ()
    """sha256 of the files that have the texts, train and held out; none: the texts are made here"""
    leading_spaces: Literal["one", "file"] = "one"
    """of the files' texts: one each, or as in the file"""


@dataclass(frozen=True)
class ScoreSettings:
    """How generations are scored."""

    runs: tuple[str, ...] = ()
    """the runs, in the order of the tables"""
    oracle: bool = False
    """score correctness by the miniature's grammar; for its own pairs only"""
    trust_remote_code: bool = False
    """run tokenizer code from the checkpoint"""


@dataclass(frozen=True)
class JudgedRun:
    """A run whose generations are judged."""

    name: str
    """the run"""
    steps: int
    """updates requested"""
    baselines: list[str]
    """the runs that it is judged against"""


@dataclass(frozen=True)
class JudgeSettings:
    """Settings of the judge."""

    judge: Literal["oracle", "endpoint", "reward"]
    """oracle (of the miniature's grammar), endpoint or reward"""
    runs: list[JudgedRun]
    """the runs, in the order of the tables"""
    model: WriterSettings = field(default_factory=WriterSettings)
    """the endpoint's model; of a reward model name, device, dtype and trust_remote_code"""


def write_rephrases(
    *,
    pairs: Path,
    model: str = "",
    kept: Path,
    output: Path,
    threads: int = 1,
    requests: RequestOptions[Requests] = REQUESTS,
    settings: RephraseSettings,
) -> None:
    """Write rephrases of probed responses, and unrelated texts, with a local model or an OpenAI-compatible endpoint.

    Every answer is kept, so that a later run requests only missing ones. The endpoint's key is read from an environment
    variable and written nowhere.

    Parameters
    ----------
    pairs
        pairs table (.parquet)
    model
        a local model that writes: a folder or a card
    kept
        answers so far (.jsonl)
    output
        file to write (.jsonl)
    threads
        CPU threads of a local model
    """
    from gradatlas.core.device import lease

    with lease(settings.writer.leased_device):
        from gradatlas.finetuning.probes import probed_pairs
        from gradatlas.finetuning.rephrases import write_rephrases as write

        probed = probed_pairs(pairs, settings.train, settings.held_out, settings.seed)
        write(probed, writer_of(settings.writer, model, requests=requests, threads=threads), kept, output)


def build_probes(
    *,
    pairs: Path,
    model: str,
    rephrases: Path | None = None,
    files: Sequence[Path] = (),
    output: Path,
    threads: int = 1,
    settings: ProbesSettings,
) -> None:
    """Build the probes, responses whose log-probability is tracked in finetuning: fourteen types per probed prompt.

    Parameters
    ----------
    pairs
        pairs table (.parquet)
    model
        model folder or card (.json) that finetuning starts from
    rephrases
        rephrases, a JSON Lines file of {"pair_id", "type", "text"} from write-rephrases; default: those of the
        miniature's grammar
    files
        the study's files of probes, of prompts that are trained on and held out (.jsonl), with settings.file_sums:
        instead of texts made here
    output
        probes table to write (.parquet)
    threads
        CPU threads
    """
    from gradatlas.core.device import lease

    with lease(settings.device):
        import torch

        from gradatlas.core.digest import code_digest
        from gradatlas.core.files import sha256_of
        from gradatlas.core.machine import libraries
        from gradatlas.core.tables import write_table
        from gradatlas.finetuning import probes
        from gradatlas.finetuning.finetune import locate_start
        from gradatlas.finetuning.sequences import ResponseEncoder
        from gradatlas.finetuning.tables import PROBES
        from gradatlas.models.loading import choose_device, load

        torch.set_num_threads(threads)
        # Before the model is loaded, to report missing texts at once.
        make = TEXTS["files" if files else "pairs"](pairs, files, rephrases, settings)
        start = locate_start(model)
        device = choose_device(settings.device)
        network, tokenizer = load(
            start.path, dtype=settings.dtype, device=device, trust_remote_code=settings.trust_remote_code
        )
        rows = make(network, ResponseEncoder(tokenizer, settings.max_length, network, settings.truncation))
        facts = {"pairs": sha256_of(pairs), "model": start.digest, "revision": start.revision, "seed": settings.seed}
        facts |= {"dtype": settings.dtype, "device": device, "window": settings.max_length}
        facts |= {"truncation": settings.truncation, "files": settings.file_sums}
        facts |= {"code": code_digest(f"{probes.__name__}:{'file_probes' if files else 'build_probes'}"), **libraries()}
        write_table(PROBES, rows, output, facts)


def _texts_of_files(pairs: Path, files: Sequence[Path], _: Any, settings: ProbesSettings) -> MakeProbes:
    from gradatlas.core.errors import InputError
    from gradatlas.finetuning.probe_files import read_probe_files
    from gradatlas.finetuning.probes import file_probes

    sums, counts = settings.file_sums, {"train": settings.train, "held_out": settings.held_out}
    if not len(files) == len(sums) == len(counts):
        raise InputError(f"--files gives {len(files)} files, settings.file_sums has {len(sums)}; give two of each")
    given = read_probe_files(files, sums, counts, pairs, one_space=settings.leading_spaces == "one")
    return lambda _, encoder: file_probes(given, encoder, seed=settings.seed)


def _texts_of_pairs(pairs: Path, _: Any, rephrases: Path | None, settings: ProbesSettings) -> MakeProbes:
    from gradatlas.finetuning import probes
    from gradatlas.finetuning.rephrases import REPHRASES

    drawn = {"train": settings.train, "held_out": settings.held_out, "seed": settings.seed}
    source = "" if not settings.rephrases else "file" if rephrases else "grammar"
    written = REPHRASES[source](probes.probed_pairs(pairs, **drawn), rephrases, settings.seed)
    how = {**drawn, "max_new_tokens": settings.max_new_tokens}
    return lambda network, encoder: probes.build_probes(pairs, network, encoder, written, **how)


# A dict literal: the digest of a job counts only where its texts come from.
TEXTS = {"files": _texts_of_files, "pairs": _texts_of_pairs}


def generate_start(
    *,
    model: str,
    pairs: Path,
    output: Path,
    threads: int = 1,
    batch_tokens: int = 4096,
    settings: GenerateSettings,
) -> None:
    """Write the free responses of a model that several runs start from, once for all of them.

    Parameters
    ----------
    model
        model folder or card (.json)
    pairs
        pairs table (.parquet)
    output
        generations table to write (.parquet)
    threads
        CPU threads
    batch_tokens
        tokens of a batch at most, prompts and padding included; reduced when memory runs out
    """
    from gradatlas.core.device import lease

    with lease(settings.device):
        import torch

        from gradatlas.finetuning.generations import generate_start as work

        torch.set_num_threads(threads)
        work(model, pairs, output, batch_tokens=batch_tokens, **asdict(settings))


def finetune(
    *,
    init: str,
    pairs: Path,
    probes: Path | None = None,
    reference: str | None = None,
    generations: Path | None = None,
    output: Path,
    journal: Path,
    judge_model: str = "",
    kept: Path | None = None,
    threads: int = 1,
    batch_tokens: int = 4096,
    generate_batch_tokens: int = 4096,
    checkpoint_every: int = 1,
    requests: RequestOptions[Requests] = REQUESTS,
    settings: FinetuneSettings,
) -> None:
    """Finetune a model on preference pairs, evaluated on probes; a killed run resumes where it stopped.

    Writes dynamics.parquet (every probe at every evaluation), generations.parquet (free responses), training.parquet
    (every update), status.json, machine.json and model/.

    Parameters
    ----------
    init
        the model to start from: a folder, a card (.json), or the model/ of another run
    pairs
        pairs table (.parquet)
    probes
        probes table (.parquet); default: no probes
    reference
        the reference model of the loss; default: the start
    generations
        generations table of which the last ones are the start's (.parquet), and are not made again
    output
        folder to write to
    journal
        folder for checkpoints, deleted at the end
    judge_model
        folder or card of a reward model that ranks on-policy samples
    kept
        answers so far of an endpoint that ranks them (.jsonl)
    threads
        CPU threads of all processes together; the last digits of the results depend on it
    batch_tokens
        tokens of an evaluation's batch at most, padding included; reduced when memory runs out
    generate_batch_tokens
        the same of a batch of free responses
    checkpoint_every
        evaluations from one checkpoint to the next
    """
    from gradatlas.core.device import lease

    given = {"init": init, "pairs": pairs, "probes": probes, "reference": reference, "generations": generations,
             "output": output, "journal": journal, "threads": max(1, threads // settings.processes),
             "batch_tokens": batch_tokens, "generate_batch_tokens": generate_batch_tokens,
             "checkpoint_every": checkpoint_every, "judged": (judge_model, kept, requests),
             "settings": settings}  # fmt: skip
    with lease(settings.device, settings.processes):
        if settings.processes == 1:
            _finetune(given)
        else:
            from gradatlas.finetuning.processes import launch
            from gradatlas.models.loading import choose_device

            launch(_finetune, given, settings.processes, choose_device(settings.device))


def _finetune(given: dict[str, Any], *processes: Any) -> None:
    """The work of one process of a run."""
    import torch

    from gradatlas.finetuning.finetune import finetune as work
    from gradatlas.finetuning.recipe import Recipe

    given = dict(given)
    threads, settings, judged = (given.pop(name) for name in ("threads", "settings", "judged"))
    torch.set_num_threads(threads)
    if settings.judge and not (processes and not processes[0].is_main):
        given["judge"] = JUDGES[settings.judge](settings.judge_model, *judged, threads)
    chosen = asdict(settings)
    del chosen["judge"], chosen["judge_model"]
    recipe = Recipe(**{name: chosen.pop(name) for name in RunSettings.__dataclass_fields__})
    # `processes` has it already.
    del chosen["processes"]
    work(given.pop("init"), given.pop("pairs"), given.pop("output"), given.pop("journal"), recipe, *processes,
         **given, **chosen)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VariantSettings(BridgeTraining, Loading):
    """What decides a run on one variant of the first study's responses."""

    variant: str
    """what is learnt"""
    variants: tuple[str, ...]
    """all variants that runs are compared on"""
    seed: int = 0
    """of questions and of the order of examples"""
    max_length: int = 1024
    """window in tokens"""


def train_on_variant(
    *,
    model: str,
    responses: Path,
    output: Path,
    journal: Path,
    threads: int = 1,
    batch_tokens: int = 4096,
    settings: Json[VariantSettings],
) -> None:
    """Finetune a model on one variant of the first study's correct responses, with snapshots.

    Snapshots are at equal updates and at equal response tokens of runs on all variants.

    Parameters
    ----------
    model
        model folder or card (.json)
    responses
        responses table (.parquet)
    output
        folder to write to
    journal
        folder for checkpoints, deleted at the end
    threads
        CPU threads
    batch_tokens
        tokens of an evaluation's batch at most, padding included
    """
    from gradatlas.core.device import lease

    with lease(settings.device):
        import torch

        from gradatlas.finetuning.bridge import train_on_variant as train

        torch.set_num_threads(threads)
        train(model, responses, output, journal, batch_tokens=batch_tokens, **asdict(settings))


def score_generations(
    *, generations: list[Path], pairs: Path, model: str, output: Path, settings: ScoreSettings
) -> None:
    """Score free generations: repetition, answers borrowed from other questions, correctness where it is known.

    Parameters
    ----------
    generations
        generations tables, one a run (.parquet)
    pairs
        pairs table (.parquet)
    model
        folder or card of the model, for its tokenizer
    output
        table to write (.parquet)
    """
    from gradatlas.finetuning.judging.scores import score_generations as score
    from gradatlas.finetuning.judging.tokens import tokens_with

    tables = by_name(settings.runs, generations, "--generations")
    score(tables, pairs, tokens_with(model, settings.trust_remote_code), oracle=settings.oracle, output=output)


def judge_generations(
    *,
    generations: list[Path],
    scores: Path,
    pairs: Path,
    model: str = "",
    kept: Path | None = None,
    output: Path,
    threads: int = 1,
    requests: RequestOptions[Requests] = REQUESTS,
    settings: Json[JudgeSettings],
) -> None:
    """Compare the free generations of runs with those of their baselines: oracle, endpoint or reward model.

    Every answer of an endpoint is kept, so that a later run requests only missing ones. Its key is read from an
    environment variable and written nowhere.

    Parameters
    ----------
    generations
        generations tables, one a run (.parquet)
    scores
        scores of the same generations (.parquet)
    pairs
        pairs table (.parquet)
    model
        a reward model's folder or card
    kept
        an endpoint's answers so far (.jsonl)
    output
        table to write (.parquet)
    threads
        CPU threads of a reward model
    """
    from gradatlas.core.device import lease

    tables = by_name([run.name for run in settings.runs], generations, "--generations")
    steps = {run.name: run.steps for run in settings.runs}
    baselines = {run.name: run.baselines for run in settings.runs}
    with lease(settings.model.device if settings.judge == "reward" else "cpu"):
        from gradatlas.finetuning.judging.compare import judge_generations as judge

        chosen = JUDGES[settings.judge](settings.model, model, kept, requests, threads)
        judge(tables, steps, baselines, scores, pairs, chosen, output)


def _oracle(*_: Any) -> Any:
    from gradatlas.finetuning.judging.judges import Oracle

    return Oracle()


def _endpoint(asked: WriterSettings, model: str, kept: Path | None, requests: Requests, threads: int) -> Any:
    from gradatlas.core.errors import InputError
    from gradatlas.finetuning.judging.judges import EndpointJudge

    if not (asked.endpoint and asked.name and kept):
        raise InputError("settings.judge endpoint: needs its model's endpoint and name, and --kept")
    return EndpointJudge(writer_of(asked, requests=requests), kept)


def _reward(loaded: WriterSettings, model: str, kept: Path | None, requests: Requests, threads: int) -> Any:
    from gradatlas.core.errors import InputError

    if not model:
        raise InputError("settings.judge reward: needs the reward model's folder or card")
    import torch

    from gradatlas.finetuning.judging.reward import RewardJudge

    torch.set_num_threads(threads)
    return RewardJudge(
        model,
        loaded.name or model,
        device=loaded.device,
        dtype=loaded.dtype,
        trust_remote_code=loaded.trust_remote_code,
    )


# A dict literal: the digest of a job counts only the judge that it uses.
JUDGES = {"oracle": _oracle, "endpoint": _endpoint, "reward": _reward}
