"""Bytes that the processes of a run send each other in a step: counted, and by the formula.

Counted: every collective that is called, by the bytes that a ring sends for it. The formula knows
the model and the layout alone. Both are sums over all processes of R copies of S parts each:

    weights put together   R (S - 1) w m (2 blocks + rest)   a block's twice in each of m passes
    gradients summed       R (S - 1) 4 m all                 within a copy, in each pass
    copies' gradients      2 (R - 1) 4 all                   once a step
    Muon                   (S - 1) / S (4 + u) matrices      updates to their owners, and back
                           + (R - 1) u matrices              and to the other copies

in numbers of weights, of w bytes each; u bytes for a value of an orthogonal update.
"""

import contextlib
import inspect
from collections import Counter

import torch.distributed as dist

GATHERED, REDUCED, COPIED = "weights put together", "gradients summed", "copies' gradients"
MUON = "Muon"
KINDS = (GATHERED, REDUCED, COPIED, MUON)


def expected_bytes(shapes, layout, *, passes, weight_bytes=4, muon_shapes=(), update_bytes=2):
    """Give the bytes of a step by kind, of all processes together.

    Args:
        shapes: whole shape of each weight by name; blocks are named `blocks.<i>.`.
        layout: (copies, parts of each).
        passes: micro-batches of a process in a step.
        weight_bytes: of a weight that is put together.
        muon_shapes: `[m, n]` of the matrices that Muon moves.
        update_bytes: of a value of an orthogonal update.
    """
    copies, parts = layout
    blocks = rest = 0
    for name, shape in shapes.items():
        size = -(-shape[0] // parts) * parts  # parts are of equal height
        for n in shape[1:]:
            size *= n
        if name.startswith("blocks."):
            blocks += size
        else:
            rest += size
    matrices = sum(m * n for m, n in muon_shapes)
    gathered = copies * (parts - 1) * weight_bytes * passes * (2 * blocks + rest)
    reduced = copies * (parts - 1) * 4 * passes * (blocks + rest)
    copied = 2 * (copies - 1) * 4 * (blocks + rest)
    muon = matrices * ((parts - 1) * (4 + update_bytes) / parts + (copies - 1) * update_bytes)
    return {GATHERED: gathered, REDUCED: reduced, COPIED: copied, MUON: round(muon)}


@contextlib.contextmanager
def counted(mesh):
    """Count what this process sends while the block runs, by kind, as a ring sends it.

    Numbers of the host (losses, norms) are a few hundred bytes, and are left out.

    Args:
        mesh: of the processes, whose first axis is that of the copies.
    """
    sent = Counter()
    copies = mesh.get_group(0).group_name

    def gathered(group, given, **_):
        sent[GATHERED] += (group.size() - 1) * given.nbytes

    def reduced(group, given, **_):
        sent[REDUCED] += (group.size() - 1) * given.nbytes // group.size()

    def summed(group, given, **_):
        if group.group_name == copies:
            sent[COPIED] += 2 * (group.size() - 1) * given.nbytes // group.size()

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
