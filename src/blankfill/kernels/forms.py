"""For which instructions the C is compiled: for those that the processor at hand has, and says so.

A library in the cache may meet another processor than the one that it was built on: home folders
are shared, and images of containers move. So none is compiled for "this machine". Each form names
the instructions that it needs, they are in the library's name, and every process takes the best
form that its own processor has.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from blankfill.runtime import cpu_name

__all__ = ["FORMS", "Form", "forms_here", "processor"]

CPUINFO = Path("/proc/cpuinfo")
_AVX2 = ("avx2", "fma", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """One way to compile the C."""

    name: str
    """Of it, in the library's file name."""
    needs: tuple[str, ...] = ()
    """Features that the processor must have, as Linux names them."""
    options: tuple[str, ...] = ()
    """More options of the compiler than one for each feature."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The compiler's options."""
        return (*(f"-m{feature.replace('_', '')}" for feature in self.needs), *self.options)


FORMS = (
    Form(name="avx512-bf16", needs=(*_AVX512, "avx512_bf16"), options=("-mtune=native",)),
    Form(name="avx512", needs=_AVX512, options=("-mtune=native",)),
    Form(name="avx2", needs=_AVX2, options=("-mtune=native",)),
    Form(name="x86-64"),
)
"""For x86-64, best first; the last is what every such processor has."""
ELSEWHERE = (Form(name="native", options=("-march=native",)), Form(name="plain"))
"""For other processors, such as ARM's: the compiler knows best, and the library belongs to one
model of processor (`processor`)."""


def forms_here() -> tuple[Form, ...]:
    """Give the forms that this processor can run, best first."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return ELSEWHERE
    features = processor_features()
    return tuple(form for form in FORMS if features.issuperset(form.needs))


def processor_features() -> frozenset[str]:
    """Give what the processor can do and the system lets it, by Linux's names."""
    return frozenset(word for line in _lines("flags", "Features") for word in line.split())


def processor() -> str:
    """Name this model of processor with its features: what a library is compiled or tuned for."""
    model = _lines("CPU implementer", "CPU part", "CPU variant")
    return "\n".join([platform.machine(), cpu_name(), *model, *sorted(processor_features())])


def _lines(*names: str) -> list[str]:
    """Give what /proc/cpuinfo says of its first processor under these names."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() in names]
