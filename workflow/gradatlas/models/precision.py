"""Weights in the requested precision, whatever the checkpoint stores: cast, dequantised, or refused."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gradatlas.core.errors import InputError
from gradatlas.models.quantised import check_installed, is_quantised
from gradatlas.models.snapshots import stored_tensors

_QUANTISED = ("quantization_config", "compression_config")
# Formats that the library dequantises on any device.
_DEQUANTISED = {"fp8": "FineGrainedFP8Config", "mxfp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}
# Buffers of positions and masks in old checkpoints.
_MASKS = ("bias", "masked_bias", "position_ids", "token_type_ids", "attn_mask")
_PLAIN = "use the original checkpoint in 16 or 32 bits"


def dequantising(path: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of loading that dequantise the weights, none for those of bitsandbytes, which stay as they are.

    Raises `InputError` for other quantised weights.
    """
    import transformers

    place = Path(path) / "config.json"
    places = (config, *(each for each in config.values() if isinstance(each, Mapping)))
    found = [(key, each[key]) for each in places for key in _QUANTISED if each.get(key) is not None]
    if found:
        key, known = found[0][0], found[0][1] if isinstance(found[0][1], Mapping) else {}
        method = known.get("quant_method", "")
        if method == "bitsandbytes":
            check_installed(f"{place}: key {key}")
            return {}
        if method not in _DEQUANTISED or "quantization_config" not in config:
            raise InputError(
                f"{place}: key {key}: weights quantised by '{method or 'an unnamed method'}' have no gradient and "
                f"cannot be dequantised; {_PLAIN}"
            )
        return {"quantization_config": getattr(transformers, _DEQUANTISED[method])(dequantize=True)}
    for name, kind, shape in stored_tensors(path):
        numbers = kind[0] in "IU" or kind == "BOOL" or kind.startswith("F8")
        if numbers and shape and name.rpartition(".")[2] not in _MASKS:
            raise InputError(
                f"{path}: weight {name} is stored as {kind}, but config.json has no quantization_config; {_PLAIN}"
            )
    return {}


def check_scales(path: str, left_out: Iterable[str]) -> None:
    """`InputError` where FP8 weights were loaded without their scales, and so are wrong by a factor.

    `left_out`: the stored tensors that the model did not load.
    """
    stored = list(stored_tensors(path))
    scaled = {name.rpartition(".")[0] for name, _, _ in stored if "scale" in name}
    bare = [
        name
        for name, kind, _ in stored
        if kind.startswith(("F8_E4", "F8_E5")) and "scale" not in name and name.rpartition(".")[0] not in scaled
    ]
    for name in (*sorted(name for name in left_out if "weight_scale" in name), *bare):
        raise InputError(
            f"{path}: {name}: an FP8 weight's scale is missing, or not named as transformers expects "
            f"(weight_scale_inv); {_PLAIN}"
        )


def set_precision(model: Any, dtype: Any) -> None:
    """Cast every parameter to `dtype`, and saved buffers of lower precision; `InputError` for integer weights.

    The library leaves some in the checkpoint's precision (other weights of a quantised model) or in float32. Weights
    that bitsandbytes has quantised stay as they are.
    """
    packed = {id(module.weight) for module in model.modules() if is_quantised(module)}
    for name, weight in model.named_parameters():
        if id(weight) in packed:
            continue
        if not weight.is_floating_point():
            raise InputError(f"model '{model.config._name_or_path}': weight {name} is {weight.dtype}; {_PLAIN}")
        weight.data = weight.data.to(dtype)
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in saved and buffer.is_floating_point() and buffer.dtype.itemsize < dtype.itemsize:
            buffer.data = buffer.data.to(dtype)
