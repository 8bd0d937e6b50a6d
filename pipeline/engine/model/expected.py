"""The tensors that a Whisper model of some shape must have: looked for before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.engine.model.shape import Shape

Sizes = tuple[int, ...]


def what_is_wrong(found: Mapping[str, Sizes], shape: Shape) -> str | None:
    """Compare tensors by their names and sizes with those that `shape` needs.

    Returns what is wrong with the first of them, the end of a sentence that begins with the model's name, or
    None. Tensors that no Whisper model has are no fault.
    """
    expected = expected_tensors(shape, found)
    if missing := [name for name in expected if name not in found]:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        return f"lacks the tensor {missing[0]}{more} of a Whisper model"
    for name, sizes in expected.items():
        if found[name] != sizes:
            return f"has the tensor {name} of {_by(found[name])}, and config.json makes it {_by(sizes)}"
    return None


def expected_tensors(shape: Shape, found: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """Names and sizes; how wide the MLPs are is read from their own first tensors in `found`."""
    dim, encoder, decoder = shape.dim, "model.encoder", "model.decoder"
    expected = {
        f"{encoder}.conv1.weight": (dim, shape.num_mels, 3),
        f"{encoder}.conv1.bias": (dim,),
        f"{encoder}.conv2.weight": (dim, dim, 3),
        f"{encoder}.conv2.bias": (dim,),
        f"{encoder}.embed_positions.weight": (shape.source_positions, dim),
        f"{decoder}.embed_tokens.weight": (shape.vocab_size, dim),
        f"{decoder}.embed_positions.weight": (shape.target_positions, dim),
        **_norm(f"{encoder}.layer_norm", dim),
        **_norm(f"{decoder}.layer_norm", dim),
    }
    for i in range(shape.encoder_layers):
        expected |= _layer(f"{encoder}.layers.{i}", ("self_attn",), dim, found)
    for i in range(shape.decoder_layers):
        expected |= _layer(f"{decoder}.layers.{i}", ("self_attn", "encoder_attn"), dim, found)
    if not shape.tied_logits:
        expected["proj_out.weight"] = (shape.vocab_size, dim)
    return expected


def _layer(
    prefix: str, attentions: tuple[str, ...], dim: int, found: Mapping[str, Sizes]
) -> dict[str, Sizes]:
    wide = found.get(f"{prefix}.fc1.weight", (0,))[0]
    expected = {
        **_norm(f"{prefix}.final_layer_norm", dim),
        **_linear(f"{prefix}.fc1", wide, dim),
        **_linear(f"{prefix}.fc2", dim, wide),
    }
    for attention in attentions:
        expected |= _norm(f"{prefix}.{attention}_layer_norm", dim)
        expected[f"{prefix}.{attention}.k_proj.weight"] = (dim, dim)  # keys have no bias
        for name in ("q_proj", "v_proj", "out_proj"):
            expected |= _linear(f"{prefix}.{attention}.{name}", dim, dim)
    return expected


def _norm(name: str, dim: int) -> dict[str, Sizes]:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _linear(name: str, num_out: int, num_in: int) -> dict[str, Sizes]:
    return {f"{name}.weight": (num_out, num_in), f"{name}.bias": (num_out,)}


def _by(sizes: Sizes) -> str:
    return " x ".join(map(str, sizes)) or "one number"
