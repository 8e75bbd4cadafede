"""Forward and backward passes as quick as a device allows."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def quick_arithmetic(device: torch.device, bfloat16: bool = True) -> Iterator[None]:
    """Within it, products are computed in bfloat16 where the device has it, if `bfloat16`."""
    attention = nullcontext()
    if device.type == "cpu":
        # the backward pass of the fused kernel takes half as long again at the size of these models
        attention = sdpa_kernel(SDPBackend.MATH)

    enabled = bfloat16 and has_bfloat16(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled), attention:
        yield


def has_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are quicker than in float32.

    They are where a processor multiplies matrices of it (AMX, or ARM's bf16). AVX-512's products of
    vectors do not make up for the conversions: a step of a training took half as long again.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.10 does not tell
            return False
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return True
