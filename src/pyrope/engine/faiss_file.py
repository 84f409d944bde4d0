"""The file of an index on FAISS: FAISS' own format, then what FAISS does not know, then a footer.

Layout, little-endian: what `faiss.write_index` writes, which may be nothing; the arrays, one after
another; a description in JSON (the definition; name, type and shape of each array); the footer:
magic, format, length of FAISS' part, of the arrays, and of the description. `faiss.read_index`
stops where its part ends. The footer comes last so that a file which is cut short anywhere has
none, and its lengths must add up to that of the file.

Everything goes through one Python file object. FAISS' own writer swallows the error of the last
flush (`FileIOWriter::~FileIOWriter` prints it), which would make a stump out of a full disk.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from pyrope.engine.base import DamagedIndexError

_faiss: Any = faiss

_MAGIC = b"pyrope/f"
_FORMAT = 1
_FOOTER = struct.Struct("<8s 4Q")
_WRITE_BYTES = 2**20
_LARGEST_DESCRIPTION = 2**20

Arrays = dict[str, NDArray[Any]]
Definition = Mapping[str, int | str]


def write_file(
    path: str, index: faiss.Index | None, definition: Definition, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write an index. What it is made of must not change meanwhile; it is not synced.

    Args:
        path: of the file, which is made or overwritten.
        index: may be None, if there is nothing to save but `arrays`.
        definition: what a reader must expect word for word, of the values that JSON keeps as they
            are.
        arrays: by name.

    Raises:
        OSError: it could not be written whole.
    """
    described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    description = json.dumps({"definition": dict(definition), "arrays": described}).encode()
    try:
        with Path(path).open("wb") as file:
            if index is not None:
                faiss.write_index(index, _faiss.PyCallbackIOWriter(file.write, _WRITE_BYTES))
            native = file.tell()
            for array in arrays.values():
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            lengths = (native, file.tell() - native, len(description))
            file.write(description + _FOOTER.pack(_MAGIC, _FORMAT, *lengths))
    except OSError as error:
        raise OSError(error.errno, f"'{path}' cannot be written: {error}") from error


def read_file(path: str, definition: Definition) -> tuple[faiss.Index | None, Arrays]:
    """Read what `write_file` wrote: the index, and copies of the arrays.

    That the file is undamaged has been checked: what FAISS finds in it is believed.

    Raises:
        OSError: the file cannot be read.
        DamagedIndexError: it is cut short, of another definition, or FAISS does not take it.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        if size < _FOOTER.size:
            raise DamagedIndexError(f"'{path}' ends within its footer")
        file.seek(size - _FOOTER.size)
        magic, form, *lengths = _FOOTER.unpack(file.read(_FOOTER.size))
        if magic != _MAGIC or sum(lengths) + _FOOTER.size != size:
            raise DamagedIndexError(f"'{path}' has no footer: it is cut short, or no index")
        if form != _FORMAT:
            raise DamagedIndexError(f"'{path}' is of format {form}, not {_FORMAT}")
        native, arrays_length, description_length = lengths
        if description_length > _LARGEST_DESCRIPTION:
            raise DamagedIndexError(f"'{path}' is described in {description_length} bytes")
        file.seek(native + arrays_length)
        described = _description(path, file.read(description_length))
        if described["definition"] != dict(definition):
            raise DamagedIndexError(f"'{path}' is of another definition than {dict(definition)}")
        arrays: Arrays = {}
        file.seek(native)
        for name, dtype_name, shape in described["arrays"]:
            dtype = np.dtype(dtype_name)
            if file.tell() + dtype.itemsize * math.prod(shape) > native + arrays_length:
                raise DamagedIndexError(f"'{path}' does not hold its array '{name}'")
            arrays[name] = np.fromfile(file, dtype, math.prod(shape)).reshape(shape)
    return (_read_native(path) if native else None), arrays


def _description(path: str, text: bytes) -> dict[str, Any]:
    try:
        described = json.loads(text)
    except ValueError as error:
        raise DamagedIndexError(f"'{path}' has no description: {error}") from error
    if not isinstance(described, dict) or described.keys() != {"definition", "arrays"}:
        raise DamagedIndexError(f"'{path}' has no description")
    return described


def _read_native(path: str) -> faiss.Index:
    try:
        return faiss.read_index(path)
    except (RuntimeError, MemoryError) as error:
        raise DamagedIndexError(f"'{path}' cannot be loaded: {error}") from error
