"""Which model writes, as command-line arguments: an endpoint's, or a local one. Nothing heavy until it is made."""

import argparse

from workflow.lib.generation.completions import Writer


def add_writer_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The arguments that `writer_of` reads; not `required`: a model need not be named."""
    add = parser.add_argument
    add("--model", required=required, default="", help="the endpoint's model, or a local one: a folder or a card")
    add("--model-name", default="", help="name of a local model in the output")
    add("--max-tokens", type=int, required=required, default=1024, metavar="N", help="tokens of one response at most")
    add("--endpoint", default="", metavar="URL", help="base URL; empty: a local model")
    add("--key-variable", default="OPENAI_API_KEY", metavar="NAME", help="environment variable with the key")
    add("--temperature", type=float, default=0, help="of an endpoint's sampling")
    add("--requests-per-minute", type=int, default=60, metavar="N", help="requests to begin at most")
    add("--attempts", type=int, default=5, metavar="N", help="tries of one request")
    add("--timeout", type=float, default=120, metavar="SECONDS", help="before a request is tried again")
    add("--pause", type=float, default=1, metavar="SECONDS", help="before the second try; doubles from there")
    add("--parallel", type=int, default=4, metavar="N", help="requests under way at one time")
    add("--device", default="auto", help="of a local model: auto, cpu, cuda")
    add("--dtype", default="float32", help="of a local model")
    add("--form", default="", help="of a local model's prompts: plain or chat; empty: chat where it has a template")
    add("--threads", type=int, default=1, help="CPU threads of a local model")
    add("--trust-remote-code", action="store_true", help="run model code from a local checkpoint")


def writer_of(given: argparse.Namespace) -> Writer:
    """The writer that the arguments describe; a GPU is to be leased before."""
    if given.endpoint:
        from workflow.lib.generation.endpoint import Endpoint

        return Endpoint(
            given.endpoint,
            given.model,
            given.key_variable,
            max_tokens=given.max_tokens,
            temperature=given.temperature,
            requests_per_minute=given.requests_per_minute,
            attempts=given.attempts,
            timeout=given.timeout,
            parallel=given.parallel,
            pause=given.pause,
        )
    import torch

    from workflow.lib.generation.local import LocalModel

    torch.set_num_threads(given.threads)
    return LocalModel(
        given.model,
        given.model_name or given.model,
        device=given.device,
        dtype=given.dtype,
        max_tokens=given.max_tokens,
        trust_remote_code=given.trust_remote_code,
        prompt=given.form,
    )
