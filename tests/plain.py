"""Grad-ECLIP a second time, as plainly as it can be written, from the model's own forward pass and autograd.

Nothing of the package is used. On a deep copy of the model, attention is replaced by its textbook formula, so that
alpha can be changed from outside and everything can be recorded.
"""

import copy

import torch


def open_attention(block, change=None, record=None):
    """Replace one block's attention. ``change(alpha)`` may return another alpha (B, H, N, N)."""
    attn = block.attn

    def attention(q_x, k_x=None, v_x=None, attn_mask=None):
        batch, count, width = q_x.shape
        projected = q_x @ attn.in_proj_weight.T + attn.in_proj_bias
        q, k, v = projected[..., :width], projected[..., width : 2 * width], projected[..., 2 * width :]

        def by_head(x):
            return x.reshape(batch, count, attn.num_heads, width // attn.num_heads).permute(0, 2, 1, 3)  # (B, H, N, C)

        scores = by_head(q) @ by_head(k).transpose(2, 3) / (width // attn.num_heads) ** 0.5
        alpha = torch.softmax(scores if attn_mask is None else scores + attn_mask.to(scores.dtype), dim=-1)
        alpha = alpha if change is None else change(alpha)
        o = (alpha @ by_head(v)).permute(0, 2, 1, 3).reshape(batch, count, width)  # (B, N, D)
        if record is not None:
            o = o.detach().requires_grad_() if not o.requires_grad else o
            o.retain_grad()
            record.append({"q": q.detach(), "k": k.detach(), "v": v.detach(), "o": o, "heads": attn.num_heads})
        return o @ attn.out_proj.weight.T + attn.out_proj.bias

    block.attention = attention


def blocks_of(model, side):
    return (model.visual if side == "image" else getattr(model, "text", model)).transformer.resblocks


def embed(model, side, inputs):
    embedding = model.encode_image(inputs) if side == "image" else model.encode_text(inputs)
    return embedding / embedding.norm(dim=-1, keepdim=True)


def changed_embedding(model, side, inputs, changes):
    """Unit embedding when block ``layer``'s alpha is changed, for each layer in ``changes``."""
    changed = copy.deepcopy(model)
    for layer, change in changes.items():
        open_attention(blocks_of(changed, side)[layer], change)
    with torch.no_grad():
        return embed(changed, side, inputs)


def add_to(reader, token, amount):
    """A change of alpha: ``amount`` is added at (reader, token), in every head."""

    def change(alpha):
        alpha = alpha.clone()
        alpha[:, :, reader, token] += amount
        return alpha

    return change


def grad_eclip(model, side, inputs, direction, layers, readers, tokens):
    """The map (N,) of ONE input, summed over ``layers``, ``readers`` and heads; zero off ``tokens``."""
    copied, record = copy.deepcopy(model), []
    for layer in layers:
        open_attention(blocks_of(copied, side)[layer], record=record)
    (embed(copied, side, inputs)[0] @ direction).backward()
    total = torch.zeros(inputs.shape[1] if side == "text" else record[0]["k"].shape[1], dtype=direction.dtype)
    for layer in record:
        width = layer["q"].shape[-1] // layer["heads"]
        for reader in readers:
            q = layer["q"][0, reader]  # over the whole width: lam is the same for all heads
            cosines = {i: torch.cosine_similarity(q, layer["k"][0, i], dim=0).item() for i in tokens}
            low, high = min(cosines.values()), max(cosines.values())
            for head in range(layer["heads"]):
                channels = slice(head * width, (head + 1) * width)
                w = layer["o"].grad[0, reader, channels]
                for i in tokens:
                    total[i] += (cosines[i] - low) / (high - low) * (w @ layer["v"][0, i, channels])
    return total
