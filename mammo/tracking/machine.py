"""The machine and the packages of a run; no name of a person or a machine is among them."""

import os
import platform
import re
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from mammo import __version__
from mammo.tracking.nvidia import opened


@cache
def packages() -> str:
    """Name and version of every installed package, one a line, as pip freezes them."""
    found: dict[str, str] = {}
    for each in distributions():
        # the head of the file is enough, and parsing the whole costs ten times as much
        head = (each.read_text("METADATA") or "").partition("\n\n")[0]
        named = dict(re.findall(r"^(Name|Version): *(.+?)\s*$", head, re.MULTILINE))
        if named.keys() == {"Name", "Version"}:  # the first on the path is what is imported
            found.setdefault(named["Name"], named["Version"])
    rows = sorted(found.items(), key=lambda row: row[0].lower())
    return "".join(f"{name}=={version}\n" for name, version in rows)


@cache
def machine() -> dict[str, Any]:
    """Versions, processor, memory and GPUs: what a result or a speed may depend on."""
    gpus = opened()
    return {
        "mammo": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": _memory_bytes(),
        "gpus": gpus.names() if gpus else [],
        "gpu_driver": gpus.driver() if gpus else "",
        "cuda_of_driver": gpus.cuda() if gpus else "",
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor()


def _memory_bytes() -> int:
    import psutil  # type: ignore[import-untyped]  # ships no types

    return int(psutil.virtual_memory().total)
