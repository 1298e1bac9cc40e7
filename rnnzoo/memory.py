"""How much memory this process has held."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def peak_resident() -> int:
    """Return the greatest resident memory of this process so far, in bytes.

    Linux has it in VmHWM; the figure of `getrusage` there is inherited from the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    if resource is None:
        return peak_working_set()
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class ProcessMemoryCounters(ctypes.Structure):
    """``PROCESS_MEMORY_COUNTERS`` of Windows."""

    _fields_ = [
        ("cb", ctypes.c_ulong),
        ("PageFaultCount", ctypes.c_ulong),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        *((name, ctypes.c_size_t) for name in ("WorkingSetSize", "QuotaPeakPagedPoolUsage", "QuotaPagedPoolUsage")),
        *((name, ctypes.c_size_t) for name in ("QuotaPeakNonPagedPoolUsage", "QuotaNonPagedPoolUsage")),
        *((name, ctypes.c_size_t) for name in ("PagefileUsage", "PeakPagefileUsage")),
    ]


def peak_working_set() -> int:
    """Return the greatest resident memory in bytes as Windows counts it; 0 where nothing counts it."""
    windows = getattr(ctypes, "windll", None)
    if windows is None:
        return 0
    counters = ProcessMemoryCounters(cb=ctypes.sizeof(ProcessMemoryCounters))
    process = ctypes.c_void_p(windows.kernel32.GetCurrentProcess())
    windows.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
    return int(counters.PeakWorkingSetSize)
