"""Models that write texts: behind an endpoint, or local. torch is imported only for a local one."""

from dataclasses import asdict, dataclass

from gradatlas.core.errors import InputError
from gradatlas.data.generation.completions import Writer
from gradatlas.study.settings import Requesting, Writing
from gradatlas.study.sheets import Loading


@dataclass(frozen=True)
class WriterSettings(Writing, Loading):
    """What a writer's answers depend on, beside the weights of a local one, which `Loading` is about."""

    name: str = ""
    """the endpoint's model; of a local one, its name in the output"""
    form: str = ""
    """of a local model's prompts: plain or chat; empty: chat where it has a template"""

    @property
    def leased_device(self) -> str:
        """The device to lease: ``cpu``, none, for an endpoint."""
        return "cpu" if self.endpoint else self.device


@dataclass(frozen=True)
class Requests(Requesting):
    """How an endpoint is asked; no answer depends on it."""

    pause: float = 1.0
    """seconds before the second try; doubles from there"""


REQUESTS = Requests()


def writer_of(settings: WriterSettings, model: str = "", *, requests: Requests = REQUESTS, threads: int = 1) -> Writer:
    """The writer that the settings describe. Lease a GPU first (`core.device.lease`).

    `model`: a local model, its folder or card; `threads`: CPU threads of it. Raises `InputError` where neither an
    endpoint's model nor a local one is named.
    """
    if settings.endpoint:
        if not settings.name:
            raise InputError(f"endpoint {settings.endpoint}: no model is named; give the writer's name")
        from gradatlas.data.generation.endpoint import Endpoint

        return Endpoint(
            settings.endpoint,
            settings.name,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            **asdict(requests),
        )
    if not model:
        raise InputError("neither an endpoint nor --model is given; give one")
    import torch

    from gradatlas.models.local_writer import LocalModel

    torch.set_num_threads(threads)
    return LocalModel(
        model,
        settings.name or model,
        device=settings.device,
        dtype=settings.dtype,
        max_tokens=settings.max_tokens,
        trust_remote_code=settings.trust_remote_code,
        prompt=settings.form,
    )
