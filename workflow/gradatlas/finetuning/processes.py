"""One run on several GPUs: every process holds the model, takes its share of each batch, and sums with the others.

Shares are cut from the batches that one process would form, so that what is computed is the same, whatever the number
of processes; only sums over a batch may round otherwise. The first process alone writes.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import Tensor, distributed
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, get_context, start_processes

from gradatlas.core.errors import InputError


class Processes:
    """This process among those of a run, `rank` of `count`; by itself where nothing else is said."""

    def __init__(self, rank: int = 0, count: int = 1):
        self.rank, self.count = rank, count

    @property
    def is_main(self) -> bool:
        """Whether it is this one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This process's part, every `count`-th; the others have the rest."""
        return list(items[self.rank :: self.count])

    def gather(self, found: Mapping[Any, Any]) -> dict[Any, Any]:
        """What all have found, by key; the same for all."""
        if self.count == 1:
            return dict(found)
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, dict(found))
        return {key: value for part in parts for key, value in part.items()}

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Put the sum over all processes into each tensor, in place."""
        if self.count > 1:
            for waiting in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                waiting.wait()

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            distributed.barrier()


SINGLE_PROCESS = Processes()


def launch(work: Callable[[Any, Processes], None], given: Any, count: int, device: str) -> None:
    """Run ``work(given, processes)`` in `count` new processes, each on a GPU of its own where `device` is ``cuda``.

    They end with this one. An `InputError` of theirs is raised here; any other failure is a traceback, and ends all.
    Raises `InputError` for fewer GPUs than processes.
    """
    if device == "cuda" and torch.cuda.device_count() < count:
        raise InputError(
            f"{count} processes asked for, {torch.cuda.device_count()} GPUs are visible; lower config key "
            "dynamics.processes"
        )
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    told = get_context("spawn").SimpleQueue()
    try:
        start_processes(_begin, (work, given, count, device, port, told), nprocs=count, start_method="spawn")
    except (ProcessExitedException, ProcessRaisedException):
        # What one could not use may have been seen first as another's broken connection.
        if told.empty():
            raise
        raise InputError(told.get()) from None


def _begin(rank: int, work: Callable, given: Any, count: int, device: str, port: int, told: Any) -> None:
    from accelerate import PartialState
    from accelerate.utils import check_cuda_p2p_ib_support

    # Sent when the parent is gone: at once, not after a sum that no one completes.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count,
               "LOCAL_WORLD_SIZE": count}  # fmt: skip
    os.environ.update({name: str(value) for name, value in address.items()})
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    if device == "cuda" and not check_cuda_p2p_ib_support():
        # Cards that cannot talk to each other directly, or NCCL waits for ever.
        os.environ.update({"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"})
    state = PartialState(cpu=device == "cpu")
    # The first says what there is to say; errors reach the parent another way.
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere if rank else sys.stderr):
        try:
            work(given, Processes(state.process_index, state.num_processes))
        except InputError as error:
            told.put(str(error))
            sys.exit(2)
    state.destroy_process_group()
