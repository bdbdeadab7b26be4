"""Several processes, one GPU or CPU each, that train one network: torchrun starts them.

In: torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK). Out: a `Team`, which says who takes which
part of a batch and holds the few words that processes exchange. Each contrasts within its own part,
as the method does (no gathering across GPUs); gradients are averaged by torch's DDP. Small messages
go through gloo on the CPU, gradients on GPUs through nccl.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.errors import UserError, check

PATIENCE = timedelta(minutes=30)  # the first process may probe and save alone in the meantime


@dataclass(frozen=True)
class Team:
    """The processes of a run; alone without torchrun."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def facts(self) -> dict[str, int]:
        """What a run's config says of it: who contrasts with whom decides the result."""
        return {"processes": self.size} if self.size > 1 else {}

    def share(self, count: int) -> slice:
        """Return this process's part of `count` samples; the parts differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; all must ask together."""
        return self.sums([float(flag)])[0] > 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes; all must ask together."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def stack(self, value: Tensor) -> Tensor:
        """Return a CPU tensor of every process [size, ...], or the tensor itself where alone."""
        if self.size == 1:
            return value
        found = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(found, value.contiguous())
        return torch.stack(found)

    def wait(self) -> None:
        """Return when all processes are here."""
        self.any(False)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with its gradients averaged over the processes.

        One forward call per backward pass. Batch-norm statistics stay each process's own (the first
        one's are saved) unless `sync_norms` came before.
        """
        refuse_data_parallel(module)
        if self.size == 1:
            return module
        return DistributedDataParallel(module, forward_sync_buffers=False)

    def sync_norms(self, network: nn.Module, device: str) -> nn.Module:
        """Return the network with batch norms over the voxels of all GPUs; torch has no CPU one."""
        if self.size == 1 or not device.startswith("cuda"):
            return network
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)


ALONE = Team()


@contextmanager
def join_team(device: str) -> Iterator[tuple[Team, str]]:
    """Join the processes that torchrun started, if it did; yield the team and this one's device.

    Raises:
        UserError: a device that several processes cannot share, or fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    check(
        device.count(":") <= 1 and "," not in device,
        f"--device: must be one device, got {device}; start one process per GPU with "
        "'torchrun --nproc-per-node GPUS -m -- train pretrain ...' (make pretrain PROCESSES=GPUS)",
    )
    if size == 1:
        yield ALONE, device
        return
    own = own_device(device, int(os.environ["LOCAL_RANK"]))
    if own.startswith("cuda"):
        torch.cuda.set_device(own)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if own.startswith("cuda") else "gloo", timeout=PATIENCE
    )
    team = Team(dist.get_rank(), size)
    try:
        yield team, own
    except RuntimeError as error:  # what gloo and nccl raise where a peer is gone
        if not any(word in str(error) for word in ("onnection", "NCCL", "peer", "imed out")):
            raise
        raise UserError(
            f"process {team.rank} of {size}: lost another process ({str(error).splitlines()[0]}); "
            "torchrun names it below, the same command goes on"
        ) from error
    finally:
        dist.destroy_process_group()


def own_device(device: str, local_rank: int) -> str:
    """Return the device of a process: GPUs by its number on this machine, or the CPU.

    Raises:
        UserError: a GPU by number, which all processes would share, or one that is not there.
    """
    if not device.startswith("cuda"):
        return device
    check(
        device == "cuda",
        f"--device: must be cuda under torchrun, got {device}; each process takes its own GPU",
    )
    count = torch.cuda.device_count()
    check(
        local_rank < count,
        f"--device: must have a GPU per process, got {count} GPUs and a process {local_rank}; "
        "lower --nproc-per-node",
    )
    return f"cuda:{local_rank}"


def refuse_data_parallel(module: nn.Module) -> None:
    """Refuse torch's threads over GPUs: they cut voxels where no sample ends.

    Raises:
        UserError: there is a DataParallel in the module.
    """
    found = [type(part).__name__ for part in module.modules() if isinstance(part, nn.DataParallel)]
    check(
        not found,
        "network: must not be in DataParallel, which cuts a batch's voxels without regard to "
        "samples; use torchrun, one process per GPU",
    )


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows [S', D] of all other processes, without gradient; all must ask together.

    Args:
        rows: [S, D] float32; S may differ, 0 is allowed.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows.new_zeros((0, rows.shape[1]))
    mine = rows.detach()
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(mine)]))
    sizes = [int(count) for count in counts]
    padded = mine.new_zeros((max(sizes), mine.shape[1]))
    padded[: len(mine)] = mine
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    rank = dist.get_rank()
    parts = [part[:size] for part, size in zip(found, sizes, strict=True)]
    return torch.cat(parts[:rank] + parts[rank + 1 :])
