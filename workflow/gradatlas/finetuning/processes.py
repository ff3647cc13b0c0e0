"""One run on several GPUs: every process holds the model and takes its share of each batch.

The batches are those of a single process, so that only the rounding of sums over a batch depends on the number of
processes. The main process writes.
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
    """This process among the processes of a run: `rank` of `count`."""

    def __init__(self, rank: int = 0, count: int = 1):
        self.rank, self.count = rank, count

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This process's share of the items, every `count`-th."""
        return list(items[self.rank :: self.count])

    def gather(self, found: Mapping[Any, Any]) -> dict[Any, Any]:
        """The entries of all processes, by key."""
        if self.count == 1:
            return dict(found)
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, dict(found))
        return {key: value for part in parts for key, value in part.items()}

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place."""
        if self.count > 1:
            for waiting in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                waiting.wait()

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            distributed.barrier()


SINGLE_PROCESS = Processes()


def launch(work: Callable[[Any, Processes], None], given: Any, count: int, device: str) -> None:
    """Run ``work(given, processes)`` in `count` new processes, each on its own GPU where `device` is ``cuda``.

    They end with this process. Their `InputError` is raised here; any other failure is a traceback and ends all. Raises
    `InputError` for fewer GPUs than processes.
    """
    if device == "cuda" and torch.cuda.device_count() < count:
        raise InputError(
            f"{count} processes are requested, but {torch.cuda.device_count()} GPUs are visible; lower config key "
            "dynamics.processes"
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    errors = get_context("spawn").SimpleQueue()
    try:
        start_processes(_begin, (work, given, count, device, port, errors), nprocs=count, start_method="spawn")
    except (ProcessExitedException, ProcessRaisedException):
        # The first failure seen may be another process's broken connection.
        if errors.empty():
            raise
        raise InputError(errors.get()) from None


def _begin(rank: int, work: Callable, given: Any, count: int, device: str, port: int, errors: Any) -> None:
    from accelerate import PartialState
    from accelerate.utils import check_cuda_p2p_ib_support

    # The parent's end sends SIGINT: end at once, not after a sum that never completes.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count,
               "LOCAL_WORLD_SIZE": count}  # fmt: skip
    os.environ.update({name: str(value) for name, value in address.items()})
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    if device == "cuda" and not check_cuda_p2p_ib_support():
        # GPUs without direct communication, on which NCCL would wait for ever.
        os.environ.update({"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"})
    state = PartialState(cpu=device == "cpu")
    # The main process logs; errors reach the parent through the queue.
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere if rank else sys.stderr):
        try:
            work(given, Processes(state.process_index, state.num_processes))
        except InputError as error:
            errors.put(str(error))
            sys.exit(2)
    state.destroy_process_group()
