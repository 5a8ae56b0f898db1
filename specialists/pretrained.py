"""Loading a transformers checkpoint, from a folder or the hub, with errors that a person can act on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_engine.errors import ModelLoadError, RecipeError
from specialists.gpu_arithmetic import without_plans


def _reason(error: BaseException) -> str:
    """The first sentence of an error, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".")[:300]


def _not_loaded(model: str, error: BaseException) -> ModelLoadError:
    hint = (
        "check that the folder holds config.json, model.safetensors and the tokenizer's and processor's files"
        if Path(model).expanduser().exists()
        else "check the name and the network, or download the checkpoint and give its folder"
    )
    return ModelLoadError(f"cannot load {model}: {_reason(error)}", hint)


def read_config(model: str, revision: str | None) -> dict[str, Any]:
    """The checkpoint's config.json. Raises ModelLoadError."""
    from transformers import PreTrainedConfig

    if model.startswith(("/", ".", "~")) and not Path(model).expanduser().is_dir():
        raise ModelLoadError(f"cannot load {model}: there is no such folder", "check the path in the recipe")
    try:
        config, _ = PreTrainedConfig.get_config_dict(_place(model), revision=revision)
    except Exception as error:
        raise _not_loaded(model, error) from error
    if not config:
        raise ModelLoadError(f"cannot load {model}: it has no config.json", "check the name or the folder")
    return dict(config)


def load_weights(cls: Any, model: str, revision: str | None, dtype: Any) -> Any:
    """`cls.from_pretrained`, of safetensors only and complete. Raises ModelLoadError.

    Left unsaid, `trust_remote_code` makes the library ask whoever sits at the terminal.

    A tensor that the file lacks would be filled with random numbers and a warning: it is an error here.
    """
    from transformers.utils import logging

    # Every worker's log would have one bar.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        loaded, info = cls.from_pretrained(
            _place(model),
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise _not_loaded(model, error) from error
    lacking = sorted([*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])])
    if lacking:
        raise ModelLoadError(
            f"cannot load {model}: {len(lacking)} of its tensors are missing or of another shape, "
            f"among them {lacking[0]}",
            "the file was cut short, or belongs to another model: fetch the checkpoint again",
        )
    return loaded


def load_processor(cls: Any, model: str, revision: str | None) -> Any:
    """`cls.from_pretrained` of a processor. Raises ModelLoadError."""
    try:
        return cls.from_pretrained(_place(model), revision=revision, trust_remote_code=False)
    except Exception as error:
        raise _not_loaded(model, error) from error


def device_and_dtype(device: str | None, dtype: str) -> tuple[Any, Any]:
    """The torch device and dtype to run on.

    No device means the GPU where there is one. `auto` is float16 on a GPU, the type that the
    checkpoints are published in, and float32 on a CPU, where half precision is slower and, in some
    operations, missing. On a GPU cuDNN's attention is left out from then on (`gpu_arithmetic`). Raises RecipeError
    for what torch does not know or the CPU cannot do.
    """
    import torch

    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise RecipeError(f"{device!r} is no device", "write cpu, cuda or cuda:N") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(f"the device {device!r} is not there", "leave `device` out to run on the CPU")
    if place.type == "cuda":
        without_plans()
    if dtype == "auto":
        return place, torch.float32 if place.type == "cpu" else torch.float16
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise RecipeError(f"{dtype!r} is no dtype", f"write auto, {', '.join(known)}")
    if place.type == "cpu" and dtype != "float32":
        raise RecipeError(f"dtype {dtype} needs a GPU", "leave `dtype` out, or write float32")
    return place, known[dtype]


def _place(model: str) -> str:
    path = Path(model).expanduser()
    return str(path) if path.exists() else model
