"""What is compiled from C for a CPU: built at first use, if it can be.

The twins of `kernels/packed.py`, of a chunk of `model/loss.py`, of `model/rope.py` and of GeGLU in
`model/mlp.py`. They need a C compiler, which is looked for as `cc`, and torch's own BLAS; building
takes about a second and is kept for the next start, in the form that this processor takes
(`forms.py`). Where either is missing nothing is lost but speed: the plain operators compute the
same, to rounding. `BLANKFILL_NATIVE=0` turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from blankfill.kernels.forms import Form, forms_here, processor
from blankfill.kernels.rectangles import STRIP, count_pairs
from blankfill.runtime import cache_folder, native_wanted

__all__ = ["TYPES", "Native", "load_native"]

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
SOURCES = tuple(HERE / name for name in ("packed.c", "chunk.c", "rotate.c", "gate.c"))
INCLUDED = tuple(
    HERE / name for name in ("bfloat16.h", "chunk_rows.h", "exponential.h", "packed_pairs.h")
)
FLAGS = ("-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC",
         f"-DSTRIP={STRIP}")  # fmt: skip


TYPES = frozenset({torch.float32, torch.bfloat16})
"""Type of all inputs and results; intermediate values are float32."""


class _View(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("row", ctypes.c_int64), ("head", ctypes.c_int64),
        ("narrow", ctypes.c_int64),
    )  # fmt: skip


class _Dropout(ctypes.Structure):
    _fields_ = (
        ("seed", ctypes.c_uint64), ("below", ctypes.c_uint32), ("grow", ctypes.c_float),
        ("part", ctypes.c_int64), ("parts", ctypes.c_int64),
    )  # fmt: skip


class Native:
    """The functions of the C files.

    Args:
        library: where they are.
        gemm: torch's product of float32 matrices.
        form: the instructions that they were compiled for.
    """

    def __init__(self, library: ctypes.CDLL, gemm: ctypes.c_void_p, form: str) -> None:
        self.form = form
        self._attend, self._attend_backward = library.attend, library.attend_backward
        self._score_chunk = {
            torch.float32: library.score_chunk_float32,
            torch.bfloat16: library.score_chunk_bfloat16,
        }
        self._add_part = library.add_part
        self._rotate = {
            torch.float32: library.rotate_float32, torch.bfloat16: library.rotate_bfloat16
        }  # fmt: skip
        self._gate, self._gate_backward = library.gate, library.gate_backward
        functions = (self._attend, self._attend_backward, self._add_part, self._gate)
        by_type = (*self._score_chunk.values(), *self._rotate.values())
        for function in (*functions, self._gate_backward, *by_type):
            function.restype = None
        self._gemm = gemm

    def forward(
        self, table: torch.Tensor, views: list[torch.Tensor], weights: torch.Tensor, scale: float,
        row_length: int, dropout: float, seed: int | None = None, part: int = 0, parts: int = 1,
    ) -> None:  # fmt: skip
        """Fill `weights` and the last of `views`: q, k, v and the result, each `[N, B * T, H]`.

        Dropout is drawn from a seed, which torch's generator gives where none is given, as for
        all heads, of which these are one of equal parts. A weight that it takes is kept as its
        negative.
        """
        examples = _examples(table, row_length)
        if seed is None:
            seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64)) if dropout else 0
        self._attend(
            self._gemm, _address(examples), *_sizes(examples, views[0]), ctypes.c_float(scale),
            _dropout(dropout, seed, part, parts), _largest(examples), _longest(examples),
            *(_view(x) for x in views), _address(weights),
        )  # fmt: skip

    def backward(
        self, table: torch.Tensor, inputs: list[torch.Tensor], weights: torch.Tensor,
        grads: list[torch.Tensor], scale: float, row_length: int, dropout: float,
    ) -> None:  # fmt: skip
        """Add to `grads`, zero on entry: of q, k and v; `inputs` are grad, q, k and v."""
        examples = _examples(table, row_length)
        self._attend_backward(
            self._gemm, _address(examples), *_sizes(examples, inputs[0]), ctypes.c_float(scale),
            _dropout(dropout), _largest(examples), _longest(examples),
            *(_view(x) for x in inputs), _address(weights), *(_view(x) for x in grads),
        )  # fmt: skip

    def score_chunk(
        self, scores: torch.Tensor, targets: torch.Tensor, normalizer: torch.Tensor,
        nats: torch.Tensor, *, gradient: bool, z_loss: float,
    ) -> None:  # fmt: skip
        """Fill `normalizer` and `nats`, `[n]` float32, from logits; turn these into gradients.

        Args:
            scores: `[n, V]` in float32 or bfloat16, overwritten where there is a gradient: by
                softmax, less `1 / (1 + 2 z_loss normalizer)` at the target.
            targets: `[n]` int64.
            normalizer: each row's log of the softmax's denominator.
            nats: each row's negative log-likelihood of its target.
            gradient: whether it is wanted.
            z_loss: weight of the squared normalizer.

        Raises:
            IndexError: a target is no column.
        """
        rows, size = scores.shape
        if not rows:
            return
        if int(targets.min()) < 0 or int(targets.max()) >= size:
            raise IndexError(f"a target is outside of the {size} columns")
        assert {targets.dtype, normalizer.dtype, nats.dtype} == {torch.int64, torch.float32}
        self._score_chunk[scores.dtype](
            _address(scores), ctypes.c_int64(rows), ctypes.c_int64(size), _address(targets),
            _address(normalizer), _address(nats), ctypes.c_int64(gradient),
            ctypes.c_float(z_loss),
        )  # fmt: skip

    def add_part(self, total: torch.Tensor, part: torch.Tensor) -> None:
        """Add a bfloat16 tensor to a float32 total of its shape."""
        assert total.shape == part.shape
        assert (total.dtype, part.dtype) == (torch.float32, torch.bfloat16)
        if total.numel():
            self._add_part(_address(total), _address(part), ctypes.c_int64(total.numel()))

    def rotate(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: float
    ) -> torch.Tensor:
        """Give `[B, T, N, H]` rotated by the angles, or with a sign of -1 back.

        Args:
            x: `[B, T, N, H]` in float32 or bfloat16.
            cos: `[B, T, 1, parts, H / parts / 2]` float32, dense.
            sin: as `cos`.
            sign: of the angles.
        """
        heads, size = x.shape[2:]
        by_row = x.reshape(-1, heads, size)  # a copy only where rows do not lie evenly
        if by_row.stride(2) != 1 or (heads > 1 and by_row.stride(1) != size):
            by_row = by_row.contiguous()
        assert cos.dtype == sin.dtype == torch.float32
        parts, half = cos.shape[3:]
        assert cos.shape[:2] == x.shape[:2]
        assert parts * 2 * half == size
        out = torch.empty(x.shape, dtype=x.dtype)
        self._rotate[x.dtype](
            ctypes.c_void_p(by_row.data_ptr()), ctypes.c_int64(by_row.stride(0)), _address(cos),
            _address(sin), *(ctypes.c_int64(n) for n in (len(by_row), heads, parts, half)),
            ctypes.c_float(sign), _address(out),
        )  # fmt: skip
        return out

    def gate(self, up: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Give `up * gelu(gate)` of dense bfloat16 tensors of one shape."""
        _require_alike(up, gate)
        out = torch.empty_like(up)
        self._gate(*_addresses(up, gate), ctypes.c_int64(up.numel()), *_addresses(out))
        return out

    def gate_backward(
        self, grad: torch.Tensor, up: torch.Tensor, gate: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the gradients of `up` and of `gate`."""
        _require_alike(grad, up, gate)
        to_up, to_gate = torch.empty_like(up), torch.empty_like(up)
        self._gate_backward(
            *_addresses(grad, up, gate), ctypes.c_int64(up.numel()), *_addresses(to_up, to_gate)
        )
        return to_up, to_gate


@functools.cache
def load_native(form: str | None = None) -> Native | None:
    """Build and load the functions; None where that cannot be or is not wanted.

    Args:
        form: the name of a form; the best that this processor has and the compiler knows where not
            given.
    """
    forms = [each for each in forms_here() if form in (None, each.name)]
    if not forms or not native_wanted() or not sys.platform.startswith("linux"):
        return None
    try:
        torch_library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
        gemm = ctypes.cast(ctypes.CDLL(str(torch_library)).sgemm_, ctypes.c_void_p)
        taken, path = _build_first(forms)
        return Native(ctypes.CDLL(str(path)), gemm, taken.name)
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        log.info(
            "attention, rotation, gates and loss run without their compiled forms (%s)",
            str(error).splitlines()[0],
        )
        return None


def _build_first(forms: Sequence[Form]) -> tuple[Form, Path]:
    """Build the first of some forms that the compiler knows the instructions of."""
    for form in forms[:-1]:
        with suppress(subprocess.CalledProcessError):
            return form, _build(form)
    return forms[-1], _build(forms[-1])


def _build(form: Form) -> Path:
    """Compile once per source, compiler flags, form and model of processor."""
    flags = (*FLAGS, *form.flags)
    text = b"".join(path.read_bytes() for path in (*SOURCES, *INCLUDED))
    key = hashlib.sha256(text + "\n".join([*flags, processor()]).encode()).hexdigest()[:16]
    target = cache_folder() / f"kernels-{form.name}-{key}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            subprocess.run(
                ["cc", *flags, "-o", str(made), *map(str, SOURCES), "-lm"],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            made.replace(target)
    return target


def _examples(table: torch.Tensor, row_length: int) -> torch.Tensor:
    """Give `[K, 4]` int64: start, start of Part B and end over all rows, pairs before."""
    table = table.to(torch.int64)
    row, start, part_b, end = table.T
    pairs = count_pairs(table)
    offset = row * row_length
    before = pairs.cumsum(0) - pairs
    return torch.stack([offset + start, offset + part_b, offset + end, before], 1).contiguous()


def _largest(examples: torch.Tensor) -> ctypes.c_int64:
    """Give a bound for the pairs of a rectangle."""
    start, part_b, end, _ = examples.T
    strip = (end - part_b).clamp(max=STRIP)
    largest = torch.maximum((part_b - start) ** 2, strip * (end - start)).max()
    return ctypes.c_int64(int(largest))


def _longest(examples: torch.Tensor) -> ctypes.c_int64:
    """Give the most positions of an example."""
    return ctypes.c_int64(int((examples[:, 2] - examples[:, 0]).max()))


def _dropout(rate: float, seed: int = 0, part: int = 0, parts: int = 1) -> _Dropout:
    return _Dropout(seed, int(rate * 2**32), 1 / (1 - rate), part, parts)


def _sizes(examples: torch.Tensor, view: torch.Tensor) -> tuple[ctypes.c_int64, ...]:
    return tuple(ctypes.c_int64(n) for n in (len(examples), view.shape[0], view.shape[2]))


def _view(x: torch.Tensor) -> _View:
    assert x.dtype in TYPES
    assert x.stride(2) == 1
    return _View(x.data_ptr(), x.stride(1), x.stride(0), x.dtype == torch.bfloat16)


def _require_alike(*tensors: torch.Tensor) -> None:
    assert {x.dtype for x in tensors} == {torch.bfloat16}
    assert len({x.shape for x in tensors}) == 1


def _addresses(*tensors: torch.Tensor) -> list[ctypes.c_void_p]:
    """Give the addresses of dense tensors, which may be empty."""
    assert all(x.is_contiguous() for x in tensors)
    return [ctypes.c_void_p(x.data_ptr()) for x in tensors]


def _address(x: torch.Tensor) -> ctypes.c_void_p:
    assert x.is_contiguous()
    assert math.prod(x.shape) > 0
    return ctypes.c_void_p(x.data_ptr())
