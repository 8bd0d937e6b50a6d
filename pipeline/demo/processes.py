"""Training on several processes (`torchrun -m jobs.train_demo …`): ranks, and the mean of the gradients."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn


def join(device: torch.device) -> None:
    """Join the group that the environment describes (WORLD_SIZE and RANK, as torchrun sets them), if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def has_bfloat16(device: torch.device) -> bool:
    """True if bfloat16 products are fast on `device`: any GPU, and CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def num_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them; 0 saves and logs."""
    return dist.get_rank() if dist.is_initialized() else 0


def in_any(flag: bool, device: torch.device) -> bool:
    """True in every process if `flag` is true in one of them."""
    if not dist.is_initialized():
        return flag
    votes = torch.tensor(float(flag), device=device)
    dist.all_reduce(votes)
    return votes.item() > 0


def share_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(mean.view_as(gradient))
