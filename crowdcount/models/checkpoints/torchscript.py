"""Reading the tensors of a TorchScript archive, as OpenAI published CLIP, without its program."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_TYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = {f"build_{kind}list" for kind in ("int", "double", "bool", "tensor")}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    # Of a damaged archive; reading it as a PyTorch file says what is wrong with it.
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of a TorchScript archive, by the names of its modules.

    Only the pickle of its attributes is read, and of that only tensors, plain values and modules
    as bare holders of attributes. Its code is never read.

    Raises:
        pickle.UnpicklingError: If the pickle names anything else.
        ValueError: If the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (data,) = (
                name
                for name in archive.namelist()
                if name.count("/") == 1 and name.endswith("/data.pkl")
            )
            module = _Unpickler(archive, data).load()
            return dict(_tensors(module))
    except (
        *(zipfile.BadZipFile, EOFError, KeyError, IndexError, TypeError, AttributeError),
        *(RuntimeError, RecursionError),
    ) as error:
        raise ValueError(f"a damaged TorchScript archive: {error}") from error


class _Module:
    """The attributes of a module."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}


def _tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")


class _Unpickler(pickle.Unpickler):
    """An unpickler that accepts only the names which TorchScript writes around tensors."""

    def __init__(self, archive: zipfile.ZipFile, data: str) -> None:
        super().__init__(io.BytesIO(archive.read(data)))
        self._archive = archive
        self._folder = data.removesuffix(".pkl")
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return type("Module", (_Module,), {})
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in _LISTS:
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return _untagged
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            entry = self._archive.getinfo(f"{self._folder}/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its tensors are compressed, as TorchScript never writes them")
            content = bytearray(self._archive.read(entry))
            self._storages[key] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self._storages[key]


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """Return a view of a storage; PyTorch refuses one that reaches outside it."""
    return storage.as_strided(size, stride, offset).contiguous()


def _untagged(value: Any, _type: str) -> Any:
    return value
