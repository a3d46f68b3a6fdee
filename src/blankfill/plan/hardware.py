"""What a plan knows of machines: data sheets, and how much of them real steps reach.

Every number is a data sheet's or has its source beside it; two alone were fitted
(`SUSTAINED_SHARE`), on the published runs that `published` marks. A user's own figures replace
those of the data sheets.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal

from blankfill.config.closest import did_you_mean
from blankfill.errors import ConfigError

__all__ = ["GPUS", "Cluster", "Gpu", "OwnFigures", "find_gpu"]

Family = Literal["ampere", "hopper"]

MEASURED_SHARE: Final[dict[Family, float]] = {"ampere": 0.869, "hopper": 0.803}
"""Best product of bfloat16 matrices as a share of the data sheet's peak: 271.2 of 312 and 794.5 of
989 TFLOP/s (the table of maximum achievable matrix products in S. Bekman's ml-engineering, its
`compute/accelerator/README.md`, A100 SXM and H100 SXM)."""
SUSTAINED_SHARE: Final[dict[Family, float]] = {"ampere": 0.895, "hopper": 0.733}
"""What is left of that best product over a whole step, in shapes that a model has and at the clock
that the power limit leaves. Fitted, one number a family."""
FUSED_ATTENTION_SHARE: Final[dict[Family, tuple[float, float]]] = {
    "ampere": (0.60, 0.50),
    "hopper": (0.40, 0.32),
}
"""Share of the peak that fused attention reaches forward and backward (FlashAttention-2, Dao 2023:
50 to 73 % of an A100 forward and up to 63 % backward; 35 to 40 % of an H100, Shah et al. 2024)."""
MEMORY_SHARE: Final = 0.85
"""Share of the data sheet's memory bandwidth that long reads and writes reach (BabelStream on
an A100 of 40 GB: 1.3 to 1.4 of 1.555 TB/s)."""
LINK_SHARE: Final = 0.8
"""Share of NVLink's rate in one direction that NCCL's collectives reach: protocol takes 20 %
(NVIDIA, nccl-tests issue 212: 370 of 450 GB/s)."""
NETWORK_SHARE: Final = 0.9
"""Share of the network's rate that they reach (nccl-tests issue 100: 91 of 100 GB/s)."""
LATENCY_SECONDS: Final = 25e-6
"""Of one collective, whatever its size (NCCL's small messages within a machine and between two:
15 to 40 microseconds)."""
LAUNCH_SECONDS: Final = 5e-6
"""Host time of one kernel launched by torch."""
GIGA: Final = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One kind of GPU in the server that its maker sells it in."""

    name: str
    """As `--gpu` takes it."""
    family: Family
    """Whose shares of the data sheet are taken."""
    peak_flops: float
    """Operations a second of dense bfloat16 (float16 on V100) products, by the data sheet."""
    multiprocessors: int
    """Streaming multiprocessors, by the data sheet."""
    memory_bytes: float
    """The data sheet's gigabytes times 10^9. A card has 6 % more (80 GB are 80 x 2^30), which is
    left to CUDA's context, NCCL's buffers and the allocator's gaps."""
    memory_bandwidth: float
    """Bytes a second, by the data sheet."""
    link_bandwidth: float
    """Bytes a second to the other GPUs of the machine, in one direction."""
    network_bandwidth: float
    """Bytes a second to other machines, in one direction, for each GPU."""
    watts: float
    """Its power limit."""
    server_watts: float
    """Its share of the server's rated power, itself included."""
    source: str
    """Whose figures these are."""
    product_share: float
    """Share of the peak that products of matrices reach in a step."""

    @property
    def product_flops(self) -> float:
        """Operations a second that they reach."""
        return self.peak_flops * self.product_share

    @property
    def read_bandwidth(self) -> float:
        """Bytes a second that long reads and writes reach."""
        return self.memory_bandwidth * MEMORY_SHARE


def _gpu(
    name: str, family: Family, source: str, *, tflops: float, units: int, gb: float, rate: float,
    link: float, gigabits: float, watts: float, server: float,
) -> Gpu:  # fmt: skip
    """Write a data sheet's figures in one unit each; `rate` and `link` in GB/s."""
    return Gpu(
        name=name, family=family, source=source, peak_flops=tflops * 1e12, multiprocessors=units,
        memory_bytes=gb * GIGA, memory_bandwidth=rate * GIGA, link_bandwidth=link * GIGA,
        network_bandwidth=gigabits / 8 * GIGA, watts=watts, server_watts=server / 8,
        product_share=MEASURED_SHARE[family] * SUSTAINED_SHARE[family],
    )  # fmt: skip


GPUS: Final[dict[str, Gpu]] = {
    gpu.name: gpu
    for gpu in (
        _gpu("V100", "ampere",
             "data sheets of V100 SXM2 and DGX-1; shares of the peak as of A100, unchecked",
             tflops=125, units=80, gb=32, rate=900, link=150, gigabits=50, watts=300, server=3500),
        _gpu("A100-40", "ampere", "data sheets of A100 SXM4 40 GB and DGX A100", tflops=312,
             units=108, gb=40, rate=1555, link=300, gigabits=200, watts=400, server=6500),
        _gpu("A100-80", "ampere", "data sheets of A100 SXM4 80 GB and DGX A100", tflops=312,
             units=108, gb=80, rate=2039, link=300, gigabits=200, watts=400, server=6500),
        _gpu("A800", "ampere", "data sheet of A800 SXM4; the server as DGX A100", tflops=312,
             units=108, gb=80, rate=2039, link=200, gigabits=200, watts=400, server=6500),
        _gpu("H100", "hopper", "data sheets of H100 SXM5 and DGX H100", tflops=989,
             units=132, gb=80, rate=3350, link=450, gigabits=400, watts=700, server=10200),
        _gpu("H800", "hopper", "data sheet of H800 SXM5; the server as DGX H100", tflops=989,
             units=132, gb=80, rate=3350, link=200, gigabits=400, watts=700, server=10200),
        _gpu("H200", "hopper", "data sheets of H200 SXM and DGX H200", tflops=989,
             units=132, gb=141, rate=4800, link=450, gigabits=400, watts=700, server=10200),
        _gpu("B200", "hopper", "data sheet of DGX B200; shares of the peak as of H100, unchecked",
             tflops=2250, units=148, gb=180, rate=8000, link=900, gigabits=400, watts=1000,
             server=14300),
    )
}  # fmt: skip
"""Every GPU that `--gpu` knows, in servers of eight."""
ALIASES: Final = {"A100": "A100-80"}


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFigures:
    """A user's own figures of a GPU; None is the table's."""

    tflops: float | None = None
    memory_gb: float | None = None
    memory_gb_per_second: float | None = None
    link_gb_per_second: float | None = None
    network_gigabits: float | None = None
    watts: float | None = None

    def settle(self, gpu: Gpu) -> Gpu:
        """Put them in place of the table's."""
        given: dict[str, float] = {
            name: value * factor
            for name, value, factor in (
                ("peak_flops", self.tflops, 1e12),
                ("memory_bytes", self.memory_gb, GIGA),
                ("memory_bandwidth", self.memory_gb_per_second, GIGA),
                ("link_bandwidth", self.link_gb_per_second, GIGA),
                ("network_bandwidth", self.network_gigabits, GIGA / 8),
                ("watts", self.watts, 1.0),
            )
            if value is not None
        }
        if not given:
            return gpu
        if "watts" in given:  # the rest of the server takes what it took
            given["server_watts"] = given["watts"] + gpu.server_watts - gpu.watts
        source = f"{gpu.source}; your own: {', '.join(given)}".replace("_", " ")
        return dataclasses.replace(gpu, **given, source=source)  # pyright: ignore[reportArgumentType]  # all of them are numbers


def find_gpu(name: str, own: OwnFigures) -> Gpu:
    """Find a GPU by name, with a user's own figures in place of the table's.

    Raises:
        ConfigError: the table has no such GPU, and not all of its figures are given.
    """
    known = {key.lower(): gpu for key, gpu in GPUS.items()}
    known |= {key.lower(): GPUS[full] for key, full in ALIASES.items()}
    if (found := known.get(name.lower())) is not None:
        return own.settle(found)
    missing = [
        "--" + field.name.replace("_", "-")
        for field in dataclasses.fields(own)
        if getattr(own, field.name) is None
    ]
    if missing:
        meant = did_you_mean(name, [*GPUS, *ALIASES])
        raise ConfigError(
            f"--gpu {name[:40]!r} is not in the table of GPUs; {meant}take one of "
            f"{', '.join(GPUS)}, or give its own figures as well: {' '.join(missing)}"
        )
    settled = own.settle(dataclasses.replace(GPUS["H100"], name=name))
    return dataclasses.replace(settled, source="your own figures; shares of the peak as of H100")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Machines of one kind."""

    gpu: Gpu
    """What stands in them."""
    nodes: int
    """Machines."""
    gpus_per_node: int
    """GPUs in each."""

    @property
    def num_gpus(self) -> int:
        """GPUs in all."""
        return self.nodes * self.gpus_per_node

    def bandwidth(self, size: int, stride: int) -> float:
        """Give the rate of a collective over `size` GPUs that stand `stride` apart.

        A ring over several machines enters and leaves each by the network of all of its own members
        there, so members that share a machine add up, to at most the rate within it.

        Args:
            size: members of the group.
            stride: GPUs from one member to the next.

        Returns:
            Bytes a second, in and out of each member (NCCL's bus bandwidth).
        """
        within = self.gpu.link_bandwidth * LINK_SHARE
        if size * stride <= self.gpus_per_node:
            return within
        together = max(1, self.gpus_per_node // stride)
        return min(within, together * self.gpu.network_bandwidth * NETWORK_SHARE)
