"""Weights in safetensors: a file, or shards and the index that says which holds what.

The format is a header in JSON and raw numbers: nothing in it can be run. The library checks that
the header's places lie in the file, side by side and without a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.errors import UsageError
from cs336lm.files import atomic_write
from cs336lm.json_files import read_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INSTALL = "it needs the package safetensors: pip install 'cs336lm[hf]'"

_ONE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def write_weights(
    weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors under their names, whole or not at all; ``metadata`` goes into the header.

    Raises ``OSError``, naming ``path``, if the file cannot be written.
    """
    save = _library().torch.save
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    with atomic_write(path) as file:
        file.write(save(tensors, {"format": "pt", **(metadata or {})}))


def converted(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights in ``dtype``; raises ``ValueError`` at a number that it cannot hold."""
    import torch

    result = {}
    for name, weight in weights.items():
        result[name] = weight.to(dtype)
        if torch.isfinite(weight).all() and not torch.isfinite(result[name]).all():
            raise ValueError(
                f"{name} holds {weight.abs().max():.4g}, which {str(dtype).removeprefix('torch.')} "
                "cannot: use another --dtype"
            )
    return result


class Weights(Mapping[str, "Tensor"]):
    """The tensors of a folder by name, read when they are asked for.

    Raises ``OSError`` if a file cannot be read, and ``ValueError`` naming the file if it is damaged
    or missing, or if the folder holds no safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        index = folder / _INDEX
        self._file_of = _read_index(index) if index.is_file() else {}
        if not self._file_of:
            if not (folder / _ONE).is_file():
                raise ValueError(_nothing_here(folder))
            self._file_of = dict.fromkeys(self._open(_ONE).keys(), _ONE)
        else:
            for file in sorted(set(self._file_of.values())):
                self._check_shard(index, file)

    def __len__(self) -> int:
        return len(self._file_of)

    def __iter__(self) -> Any:
        return iter(self._file_of)

    def __getitem__(self, name: str) -> Tensor:
        try:
            tensor: Tensor = self._open(self._file_of[name]).get_tensor(name)
        except _library().SafetensorError as error:
            raise ValueError(f"{self.folder / self._file_of[name]}: {error}") from None
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor, without reading it."""
        return tuple(self._open(self._file_of[name]).get_slice(name).get_shape())

    def _open(self, file: str) -> Any:
        if file not in self._files:
            path, library = self.folder / file, _library()
            with path.open("rb"):  # an error names the file and says why
                pass
            try:
                self._files[file] = library.safe_open(path, framework="pt")
            except library.SafetensorError as error:
                raise ValueError(
                    f"{path} is truncated, damaged or not a safetensors file ({error})"
                ) from None
        return self._files[file]

    def _check_shard(self, index: Path, file: str) -> None:
        promised = {name for name, home in self._file_of.items() if home == file}
        missing = sorted(promised - set(self._open(file).keys()))
        if missing:
            raise ValueError(f"{self.folder / file} lacks {missing[0]!r}, which {index} promises")


def _read_index(path: Path) -> dict[str, str]:
    try:
        places = read_json(path)["weight_map"]
        for file in places.values():
            if Path(file).name != file:
                raise ValueError(f"{file!r} is not a file beside it")
        return dict(places)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not an index of safetensors files ({error})") from None


def _nothing_here(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is not a directory: name a folder with config.json and model.safetensors"
    pickled = sorted(found.name for kind in _PICKLED for found in folder.glob(kind))
    if pickled:
        return (
            f"{folder} holds its weights in {pickled[0]}, which could run code when it is opened: "
            "only safetensors is read; transformers' save_pretrained writes it"
        )
    return f"{folder} does not contain {_ONE}, nor {_INDEX}"


def _library() -> Any:
    """The package ``safetensors``, with its part for PyTorch loaded."""
    try:
        import safetensors
        import safetensors.torch
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("safetensors"):
            raise
        raise UsageError(INSTALL) from None
    return safetensors
