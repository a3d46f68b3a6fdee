"""The special tokens of blank infilling, by role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blankfill.errors import DataError

__all__ = ["DISPLAY", "SpecialIds", "sentinel_names"]

DISPLAY = {
    "mask": "[MASK]",
    "smask": "[sMASK]",
    "gmask": "[gMASK]",
    "sop": "[S]",
    "eop": "[E]",
    "eos": "[EOS]",
    "pad": "[PAD]",
    "dblock": "[dBLOCK]",
}
"""How each role is written in tables and pictures."""

Sentinels = tuple[tuple[int, ...], tuple[int, ...]]


def sentinel_names(number: int) -> tuple[str, str]:
    """Name the mask and the `sop` of sentinel `number`, from 1."""
    return f"[MASK{number}]", f"[S{number}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialIds:
    """Token ids of the roles that the objective needs.

    Raises:
        DataError: two roles share an id (as `[gMASK]` and `eop` do in glm-10b-chinese).
    """

    mask: int
    """Stands in Part A for a short span."""
    smask: int
    """Stands in Part A for whole sentences."""
    gmask: int
    """Stands in Part A for a document-level blank."""
    sop: int
    """Opens each span in Part B."""
    eop: int
    """The target that ends each span."""
    eos: int
    """Ends a document."""
    pad: int
    """Fills the rest of a row."""
    dblock: int
    """Replaces a Part B input under decoder-input dropout."""
    shared: tuple[str, ...] = ()
    """Roles that are known to share one id: `("gmask", "eop")` in glm-10b-chinese as released,
    where a document blank and the end of a span look alike."""
    mask_sentinels: tuple[int, ...] = ()
    """[MASK1], [MASK2], ...: the masks of the second and later spans of Part B, with sentinels."""
    sop_sentinels: tuple[int, ...] = ()
    """[S1], [S2], ...: what opens them."""
    opening: int | None = None
    """`[CLS]`, which opens every text of GLM up to 10B, as `eos` closes it; None where texts have
    no frame."""

    def __post_init__(self) -> None:
        if wrong := set(self.shared) - set(DISPLAY):
            raise DataError(f"shared names {min(wrong)!r}, which is none of: {', '.join(DISPLAY)}")
        seen: dict[int, str] = {}
        for role in DISPLAY:
            value = getattr(self, role)
            if value in seen and not {role, seen[value]} <= set(self.shared):
                raise DataError(
                    f"the special tokens {seen[value]} and {role} share the id {value}; give each "
                    f'role an id of its own, or name them: shared=("{seen[value]}", "{role}")'
                )
            seen[value] = role

    @classmethod
    def of_roles(cls, ids: Mapping[str, int], *, sentinels: Sentinels = ((), ())) -> SpecialIds:
        """Take the id of every role in `DISPLAY` from a mapping.

        Args:
            ids: id of each role.
            sentinels: masks, and what opens their spans.
        """
        return cls(
            mask=ids["mask"], smask=ids["smask"], gmask=ids["gmask"], sop=ids["sop"],
            eop=ids["eop"], eos=ids["eos"], pad=ids["pad"], dblock=ids["dblock"],
            mask_sentinels=sentinels[0], sop_sentinels=sentinels[1],
        )  # fmt: skip
