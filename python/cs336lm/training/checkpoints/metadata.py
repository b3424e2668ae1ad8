"""The index of a sharded checkpoint, read without running what a stranger may have put into it.

PyTorch keeps it as a pickle (``.metadata``), and a pickle can call anything. Here only the classes
that such an index is made of are made, and only tensors in files beside it are believed: an entry
of any other kind would be unpickled as well when it is loaded.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

_NAME = ".metadata"
_MOST_BYTES = 1 << 30

# module: the names in it that an index of tensors is made of.
_KNOWN = {
    "builtins": {"set"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},
    "torch": {
        *("Size", "contiguous_format", "preserve_format", "channels_last"),
        *("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
        *("int8", "int16", "int32", "int64", "uint8", "bool", "strided"),
    },
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "TensorProperties", "TensorStorageMetadata"),
        *("ChunkStorageMetadata", "StorageMeta", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
}


class SafeReader(FileSystemReader):
    """Reads the tensors of a sharded checkpoint, and nothing else."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index.

        Raises ``ValueError`` if it is of something else than tensors in files beside it.
        """
        content = (Path(self.path) / _NAME).read_bytes()
        if len(content) > _MOST_BYTES:
            raise ValueError(f"{_NAME} is longer than {_MOST_BYTES:,} bytes")
        found = _Unpickler(io.BytesIO(content)).load()
        if not isinstance(found, Metadata):
            raise ValueError(f"{_NAME} is no index")
        for name, entry in found.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                raise ValueError(f"{_NAME}: {name} is no tensor")
        for place in (found.storage_data or {}).values():
            refuse_path(str(place.relative_path))
        return found


def refuse_path(name: str) -> None:
    """Raises ``ValueError`` unless ``name`` is that of a file beside the one that says it."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file beside it")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _KNOWN.get(module, ()):
            raise pickle.UnpicklingError(f"{_NAME} asks for {module}.{name}")
        return super().find_class(module, name)
