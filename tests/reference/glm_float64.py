"""A naive GLM, written from the papers, one number at a time: the oracle of the real model.

Du et al. 2022 (GLM): section 2.1 (objective), 2.2 (Pre-LN, tied linear output, GeLU), 2.2.1 (two
learned positions). Zeng et al. 2022 (GLM-130B): section 2.1 (DeepNorm, GeGLU), 3 (embedding
gradient shrink), appendix B (RoPE). Su et al. 2021 (RoPE), section 3.2. Vaswani et al. 2017
(Post-LN, ReLU). Ding et al. 2021 (CogView): Sandwich-LN. Shazeer 2020: GeGLU, SwiGLU. Henry et al.
2020: normalised queries and keys, here by a LayerNorm.

Nothing is batched, packed, fused or cached. A document is a list of tokens; every query loops over
the keys that it may see; every head loops over its own slice. It shares no code with `blankfill`:
weights come in as a plain dictionary of float64 tensors, torch is used for scalars' arithmetic and
its gradients only.
"""

import math

import torch

EPS = 1e-5


def sees(query, key, part_b_start):
    """Part A is seen by all; Part B only by itself and what comes after it."""
    return key < part_b_start or key <= query


def layer_norm(x, weight, bias):
    mean = x.sum() / len(x)
    centred = x - mean
    variance = (centred * centred).sum() / len(x)
    return weight * centred / torch.sqrt(variance + EPS) + bias


def gelu(x, form):
    if form == "tanh":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def linear(x, weight, bias):
    return (weight * x).sum(dim=1) + bias


def frequency(i, width, angles):
    exact = 10000.0 ** (-2 * i / width)
    return float(torch.tensor(exact).half()) if angles == "float16" else exact


def rotate_pairwise(vector, position, angles):
    """Turn each pair (i, i + width / 2) by its own angle."""
    width = len(vector)
    out = [None] * width
    for i in range(width // 2):
        angle = position * frequency(i, width, angles)
        a, b = vector[i], vector[i + width // 2]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
    return torch.stack(out)


def rotate(vector, positions, cfg):
    if cfg["positions"] in ("learned_2d", "none"):
        return vector
    if cfg["positions"] == "rope_1d":
        return rotate_pairwise(vector, positions[0], cfg["rope_angles"])
    half = len(vector) // 2
    return torch.cat(
        [
            rotate_pairwise(vector[:half], positions[0], cfg["rope_angles"]),
            rotate_pairwise(vector[half:], positions[1], cfg["rope_angles"]),
        ]
    )


def attention(rows, positions, part_b_start, layer, cfg):
    size = len(rows[0])
    head = size // cfg["num_heads"]
    each = {
        name: [
            linear(x, layer[f"attention.{name}.weight"], layer[f"attention.{name}.bias"])
            for x in rows
        ]
        for name in "qkv"
    }

    def turned(which, at, part):
        vector = each[which][at][part]
        if cfg["qk_norm"]:
            name = f"attention.{which}_norm"
            vector = layer_norm(vector, layer[f"{name}.weight"], layer[f"{name}.bias"])
        return rotate(vector, positions[at], cfg)

    results = [[] for _ in rows]
    for h in range(cfg["num_heads"]):
        part = slice(h * head, (h + 1) * head)
        queries = [turned("q", at, part) for at in range(len(rows))]
        keys = [turned("k", at, part) for at in range(len(rows))]
        values = [vector[part] for vector in each["v"]]
        for query in range(len(rows)):
            seen = [key for key in range(len(rows)) if sees(query, key, part_b_start)]
            scores = [(queries[query] * keys[key]).sum() / math.sqrt(head) for key in seen]
            top = max(scores).detach()
            exponentials = [torch.exp(s - top) for s in scores]
            total = sum(exponentials)
            results[query].append(
                sum(e / total * values[key] for e, key in zip(exponentials, seen, strict=True))
            )
    return [
        linear(torch.cat(heads), layer["attention.out.weight"], layer["attention.out.bias"])
        for heads in results
    ]


def activated(up, gate, activation):
    if activation == "geglu":
        return up * gelu(gate, "erf")
    if activation == "swiglu":
        return up * gate / (1 + torch.exp(-gate))
    if activation == "relu":
        return torch.where(up > 0, up, torch.zeros_like(up))
    return gelu(up, "tanh" if activation == "gelu_tanh" else "erf")


def block(rows, positions, part_b_start, layer, cfg):
    """One layer, in the arrangement that `cfg["block"]` names."""
    alpha = cfg["alpha"]

    def norm(which, x):
        return layer_norm(x, layer[f"{which}.weight"], layer[f"{which}.bias"])

    def attend(xs):
        return attention(xs, positions, part_b_start, layer, cfg)

    def mlp(x):
        up = linear(x, layer["mlp.up.weight"], layer["mlp.up.bias"])
        gate = None
        if cfg["activation"] in ("geglu", "swiglu"):
            gate = linear(x, layer["mlp.gate.weight"], layer["mlp.gate.bias"])
        inner = activated(up, gate, cfg["activation"])
        return linear(inner, layer["mlp.down.weight"], layer["mlp.down.bias"])

    if cfg["block"] == "pre_ln":
        attended = attend([norm("attention_norm", x) for x in rows])
        rows = [x + a for x, a in zip(rows, attended, strict=True)]
        return [x + mlp(norm("mlp_norm", x)) for x in rows]
    if cfg["block"] == "sandwich":
        attended = attend([norm("attention_norm", x) for x in rows])
        rows = [x + norm("attention_out_norm", a) for x, a in zip(rows, attended, strict=True)]
        return [x + norm("mlp_out_norm", mlp(norm("mlp_norm", x))) for x in rows]
    if cfg["block"] in ("post_ln", "deepnorm_paper"):
        attended = attend(rows)
        rows = [norm("attention_norm", alpha * x + a) for x, a in zip(rows, attended, strict=True)]
        return [norm("mlp_norm", alpha * x + mlp(x)) for x in rows]
    assert cfg["block"] == "deepnorm"  # the residual is taken from the normalised value
    normed = [norm("attention_norm", x) for x in rows]
    rows = [alpha * x + a for x, a in zip(normed, attend(normed), strict=True)]
    middle = [norm("mlp_norm", x) for x in rows]
    return [alpha * m + mlp(m) for m in middle]


def shrunk(x, share):
    """Let only a share of the gradient through."""
    return share * x + (1 - share) * x.detach()


def hidden_states(document, weights, cfg):
    """Compute the last hidden states of one document.

    Args:
        document: tokens, positions (pairs), part_b_start.
        weights: float64 tensors by the real model's names.
        cfg: num_layers, num_heads, block, alpha, activation, positions, rope_angles, qk_norm,
            shrink, shrink_head.
    """
    tokens, positions, part_b_start = document
    rows = []
    for token, (first, second) in zip(tokens, positions, strict=True):
        x = shrunk(weights["embed.word.weight"][token], cfg["shrink"])
        if cfg["positions"] == "learned_2d":
            x = x + weights["embed.position.weight"][first]
            x = x + weights["embed.block_position.weight"][second]
        rows.append(x)
    for n in range(cfg["num_layers"]):
        stem = f"blocks.{n}."
        layer = {k.removeprefix(stem): v for k, v in weights.items() if k.startswith(stem)}
        rows = block(rows, positions, part_b_start, layer, cfg)
    if cfg["block"] in ("post_ln", "deepnorm_paper"):
        return rows
    return [layer_norm(x, weights["norm.weight"], weights["norm.bias"]) for x in rows]


def logits(document, weights, cfg):
    """Score the vocabulary at every position: a list of `[V]`."""
    matrix = weights.get("head.weight", weights["embed.word.weight"])
    if cfg["shrink_head"]:
        matrix = shrunk(matrix, cfg["shrink"])
    return [(matrix * h).sum(dim=1) for h in hidden_states(document, weights, cfg)]


def loss(scores_of_all, targets):
    """Sum the nats of the targets; None where nothing is predicted."""
    total = torch.zeros((), dtype=torch.float64)
    for scores, target in zip(scores_of_all, targets, strict=True):
        if target is not None:
            top = scores.max().detach()
            total = total + torch.log(torch.exp(scores - top).sum()) + top - scores[target]
    return total
