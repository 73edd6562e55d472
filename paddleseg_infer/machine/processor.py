"""The processor's name and features, as the system reports them."""

import contextlib
import platform
import re

CPU_INFO = "/proc/cpuinfo"
BF16_FEATURES = ("avx512_bf16", "amx_bf16")  # of x86; with either, bf16 is faster than fp32


def described(cpu_info: str = CPU_INFO) -> str:
    """Returns the processor's model and features, as lines of text."""
    with contextlib.suppress(OSError), open(cpu_info, encoding="utf-8") as file:
        lines = re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", file.read(), re.M)
        return "\n".join(sorted(set(lines)))
    return platform.processor()


def missing_for_bf16(cpu_info: str = CPU_INFO) -> str:
    """Returns what the processor lacks to compute in bf16, or "" if it can.

    Without these features OpenVINO computes in fp32 and reports nothing, or is very slow.
    """
    if set(BF16_FEATURES) & set(described(cpu_info).split()):
        return ""
    return f"this processor has neither {' nor '.join(BF16_FEATURES)}"
