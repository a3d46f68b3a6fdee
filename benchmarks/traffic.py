"""Bytes that the processes of a run send each other in a step: counted, and by the formula.

Counted: every collective that is called, by the bytes that a ring sends for it. The formula knows
the model and the layout alone. Both are sums over all processes of R copies of S parts each, whose
blocks are computed by T together:

    weights put together   R (S - 1) w m (2 blocks + rest)   a block's twice in each of m passes
    gradients summed       R (S - 1) 4 m all                 within a copy, in each pass
    copies' gradients      2 (R - 1) 4 all                   once a step
    Muon                   (H - 1) / H (4 + u) matrices      updates to their owners, and back
                           + (R - 1) u matrices              and to the other copies; H = S T
    blocks together        (T - 1) 4 ((8 L - 4) P D          positions between products, and of the
                           + (8 D + 6) n)                    last block those with a target
                           + 2 (T - 1) R 4 whole             gradients of what is not cut, once

in numbers of weights, of w bytes each, where those that T processes do not cut count T times; u
bytes for a value of an orthogonal update; L blocks of width D; P positions in a step, n of them
with a target, those of rows of weight 0 included.
"""

import contextlib
import inspect
from collections import Counter

import torch.distributed as dist

GATHERED, REDUCED, COPIED = "weights put together", "gradients summed", "copies' gradients"
MUON, TOGETHER = "Muon", "blocks together"
KINDS = (GATHERED, REDUCED, COPIED, MUON, TOGETHER)


def expected_bytes(
    shapes, layout, *, passes, weight_bytes=4, muon_shapes=(), update_bytes=2, positions=0,
    targets=0, uncut=0,
):  # fmt: skip
    """Give the bytes of a step by kind, of all processes together.

    Args:
        shapes: shape of each weight by name, of what is cut a part's; blocks are `blocks.<i>.`.
        layout: (copies, parts of each, processes that compute a block together).
        passes: micro-batches of a process in a step.
        weight_bytes: of a weight that is put together.
        muon_shapes: `[m, n]` of the whole matrices that Muon moves.
        update_bytes: of a value of an orthogonal update.
        positions: that all processes compute in a step.
        targets: among them.
        uncut: values of the weights that processes which compute a block together do not cut.
    """
    copies, parts, together = layout
    blocks = rest = 0
    for name, shape in shapes.items():
        size = -(-shape[0] // parts) * parts  # parts are of equal height
        for n in shape[1:]:
            size *= n
        if name.startswith("blocks."):
            blocks += size
        else:
            rest += size
    blocks, rest = blocks * together, rest * together
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    width = shapes["embed.word.weight"][1]
    matrices, holders = sum(m * n for m, n in muon_shapes), parts * together
    gathered = copies * (parts - 1) * weight_bytes * passes * (2 * blocks + rest)
    reduced = copies * (parts - 1) * 4 * passes * (blocks + rest)
    copied = 2 * (copies - 1) * 4 * (blocks + rest)
    muon = matrices * ((holders - 1) * (4 + update_bytes) / holders + (copies - 1) * update_bytes)
    of_rows = (8 * depth - 4) * positions * width + (8 * width + 6) * targets
    of_blocks = 4 * (together - 1) * (of_rows + 2 * copies * uncut)
    return {
        GATHERED: gathered, REDUCED: reduced, COPIED: copied, MUON: round(muon),
        TOGETHER: of_blocks,
    }  # fmt: skip


@contextlib.contextmanager
def counted(mesh):
    """Count what this process sends while the block runs, by kind, as a ring sends it.

    Numbers of the host (losses, norms) are a few hundred bytes, and are left out.

    Args:
        mesh: of the processes, with an axis for copies and one for those that compute together.
    """
    sent = Counter()
    copies, together = (mesh.get_group(axis).group_name for axis in ("replicate", "tensor"))

    def gathered(group, given, **_):
        kind = TOGETHER if group.group_name == together else GATHERED
        sent[kind] += (group.size() - 1) * given.nbytes

    def reduced(group, given, **_):
        kind = TOGETHER if group.group_name == together else REDUCED
        sent[kind] += (group.size() - 1) * given.nbytes // group.size()

    def summed(group, given, **_):
        kind = {copies: COPIED, together: TOGETHER}.get(group.group_name)
        if kind is not None:
            sent[kind] += 2 * (group.size() - 1) * given.nbytes / group.size()

    def exchanged(group, given, input_split_sizes, **_):
        kept = input_split_sizes[group.rank()] * given.element_size()
        sent[MUON] += given.nbytes - kept

    def told(group, given, group_src, **_):
        if group.rank() == group_src:
            sent[MUON] += (group.size() - 1) * given.nbytes

    watched = {
        "all_gather_single": gathered, "all_gather_into_tensor": gathered,
        "reduce_scatter_single": reduced, "reduce_scatter_tensor": reduced,
        "all_reduce": summed, "all_to_all_single": exchanged, "broadcast": told,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, note in watched.items():
            if hasattr(dist, name):  # torch renames them
                stack.enter_context(_noted(name, note))
        yield sent


@contextlib.contextmanager
def _noted(name, note):
    """Tell `note` of each call of a collective of torch.distributed."""
    call = getattr(dist, name)
    signature = inspect.signature(call)

    def noted(*args, **more):
        given = signature.bind(*args, **more).arguments
        tensor = given.get("input_tensor", given.get("input", given.get("tensor")))
        if given.get("group") is not None:
            note(given=tensor, **{key: given.get(key) for key in KEYS})
        return call(*args, **more)

    setattr(dist, name, noted)
    try:
        yield
    finally:
        setattr(dist, name, call)


KEYS = ("group", "group_src", "input_split_sizes")
"""Arguments of a collective that say what it sends, beside its tensor."""
