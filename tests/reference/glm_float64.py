"""A naive GLM, written from the papers, one number at a time: the oracle of the real model.

Du et al. 2022 (GLM): section 2.1 (objective), 2.2 (Pre-LN, tied linear output, GeLU), 2.2.1 (two
learned positions). Zeng et al. 2022 (GLM-130B): section 2.1 (DeepNorm, GeGLU), appendix B (RoPE).
Su et al. 2021 (RoPE), section 3.2.

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
    return torch.stack([(row * x).sum() for row in weight]) + bias


def rotate_pairwise(vector, position):
    """Turn each pair (i, i + width / 2) by its own angle."""
    width = len(vector)
    out = [None] * width
    for i in range(width // 2):
        angle = position * 10000.0 ** (-2 * i / width)
        a, b = vector[i], vector[i + width // 2]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
    return torch.stack(out)


def rotate(vector, positions, encoding):
    if encoding == "learned_2d":
        return vector
    if encoding == "rope_1d":
        return rotate_pairwise(vector, positions[0])
    half = len(vector) // 2
    return torch.cat(
        [
            rotate_pairwise(vector[:half], positions[0]),
            rotate_pairwise(vector[half:], positions[1]),
        ]
    )


def attention(rows, positions, part_b_start, weights, prefix, num_heads, encoding):
    size = len(rows[0])
    head = size // num_heads
    fused = [
        linear(x, weights[f"{prefix}.qkv.weight"], weights[f"{prefix}.qkv.bias"]) for x in rows
    ]
    results = []
    for query in range(len(rows)):
        heads = []
        for h in range(num_heads):
            part = slice(h * head, (h + 1) * head)
            q = rotate(fused[query][:size][part], positions[query], encoding)
            scores, values = [], []
            for key in range(len(rows)):
                if sees(query, key, part_b_start):
                    k = rotate(fused[key][size : 2 * size][part], positions[key], encoding)
                    scores.append((q * k).sum() / math.sqrt(head))
                    values.append(fused[key][2 * size :][part])
            exponentials = [torch.exp(s - max(scores).detach()) for s in scores]
            total = sum(exponentials)
            heads.append(sum(e / total * v for e, v in zip(exponentials, values, strict=True)))
        results.append(
            linear(torch.cat(heads), weights[f"{prefix}.out.weight"], weights[f"{prefix}.out.bias"])
        )
    return results


def feed_forward(x, weights, prefix, activation):
    up = linear(x, weights[f"{prefix}.up.weight"], weights[f"{prefix}.up.bias"])
    if activation == "geglu":
        half = len(up) // 2
        inner = up[:half] * gelu(up[half:], "erf")
    else:
        inner = gelu(up, "tanh" if activation == "gelu_tanh" else "erf")
    return linear(inner, weights[f"{prefix}.down.weight"], weights[f"{prefix}.down.bias"])


def hidden_states(document, weights, cfg):
    """Compute the last hidden states of one document.

    Args:
        document: tokens, positions (pairs), part_b_start.
        weights: float64 tensors by the real model's names.
        cfg: num_layers, num_heads, block, alpha, activation, positions.
    """
    tokens, positions, part_b_start = document
    rows = []
    for token, (first, second) in zip(tokens, positions, strict=True):
        x = weights["embed.word.weight"][token]
        if cfg["positions"] == "learned_2d":
            x = x + weights["embed.position.weight"][first]
            x = x + weights["embed.block_position.weight"][second]
        rows.append(x)
    for n in range(cfg["num_layers"]):
        name = f"blocks.{n}"

        def norm(x, which, name=name):
            return layer_norm(x, weights[f"{name}.{which}.weight"], weights[f"{name}.{which}.bias"])

        normed = [norm(x, "attention_norm") for x in rows]
        attended = attention(
            normed, positions, part_b_start, weights, f"{name}.attention", cfg["num_heads"],
            cfg["positions"],
        )  # fmt: skip
        if cfg["block"] == "pre_ln":
            rows = [x + a for x, a in zip(rows, attended, strict=True)]
            rows = [
                x + feed_forward(norm(x, "mlp_norm"), weights, f"{name}.mlp", cfg["activation"])
                for x in rows
            ]
        else:  # the residual is taken from the normalised value, scaled by alpha
            rows = [cfg["alpha"] * x + a for x, a in zip(normed, attended, strict=True)]
            middle = [norm(x, "mlp_norm") for x in rows]
            rows = [
                cfg["alpha"] * m + feed_forward(m, weights, f"{name}.mlp", cfg["activation"])
                for m in middle
            ]
    return [layer_norm(x, weights["norm.weight"], weights["norm.bias"]) for x in rows]


def logits(document, weights, cfg):
    """Score the vocabulary at every position: a list of `[V]`."""
    matrix = weights.get("head.weight", weights["embed.word.weight"])
    return [
        torch.stack([(word * h).sum() for word in matrix])
        for h in hidden_states(document, weights, cfg)
    ]


def loss(scores_of_all, targets):
    """Sum the nats of the targets; None where nothing is predicted."""
    total = torch.zeros((), dtype=torch.float64)
    for scores, target in zip(scores_of_all, targets, strict=True):
        if target is not None:
            top = scores.max().detach()
            total = total + torch.log(torch.exp(scores - top).sum()) + top - scores[target]
    return total
