"""Parquet files of published benchmarks: read a few rows at a time, photos left where they are.

Sizes of the benchmarks are gigabytes of photos. A row is read once, its photos decoded once and let
go; what stays is where each of them lies.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unsee.data.images import Photo
from unsee.errors import DataError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_ROWS_A_GROUP = 64
# Else a whole file is read ahead, and each column of a row group at once.
_FRUGAL: Mapping[str, Any] = {"pre_buffer": False, "buffer_size": 1 << 16}


@dataclass(frozen=True)
class Place:
    """Where a row lies.

    Attributes:
        path: The file.
        number: Row of the file, from 1, for messages.
        group: Row group.
        offset: Row of the group, from 0.
    """

    path: Path
    number: int
    group: int
    offset: int

    def photo(self, image: object, column: str, item: int | None = None) -> Photo:
        """A photo of this row, decoded once and read again whenever it is asked for.

        Args:
            image: Value of the column: `{"bytes", "path"}`. Without bytes the path names a file in
                the folder of the parquet file.
            column: Column that holds it.
            item: Which one, where the column holds a list.

        Raises:
            DataError: If there is neither, or it does not decode; see `Photo.open`.
        """
        name = image.get("path") if isinstance(image, Mapping) else None
        try:
            data = encoded_bytes(image)
        except DataError:
            if not isinstance(name, str) or not name:
                raise
            photo = Photo(path=_beside(self.path, name))
            photo.open()
            return photo
        Photo(data=data).open()
        digest = hashlib.sha256(data).hexdigest()
        return Photo(stored=StoredImage(digest, place=self, column=column, item=item))


@dataclass(frozen=True)
class StoredImage:
    """An encoded image in a parquet file. Equal bytes are equal images, wherever they lie.

    Attributes:
        digest: SHA-256 of the bytes, hexadecimal.
        place: Its row.
        column: Its column.
        item: Which one of a list; None where the column holds one.
    """

    digest: str
    place: Place = field(compare=False)
    column: str = field(compare=False)
    item: int | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """File and row."""
        return f"{self.place.path}: row {self.place.number}"

    def read(self) -> bytes:
        """The bytes, read anew.

        Raises:
            DataError: If the file is gone, or holds something else there by now.
        """
        try:
            stat = self.place.path.stat()
            column = _group_column(
                self.place.path, stat.st_mtime_ns, stat.st_size, self.place.group, self.column
            )
            value = column[self.place.offset].as_py()
            data = (value if self.item is None else value[self.item])["bytes"]
        except (OSError, pa.ArrowException, LookupError, TypeError):
            data = None
        if not isinstance(data, bytes) or hashlib.sha256(data).hexdigest() != self.digest:
            raise DataError(
                f"{self.name}: expected the photo that was there when the run began, got "
                "something else; put the file back, or begin anew"
            )
        return data


@lru_cache(maxsize=1)
def _group_column(path: Path, changed: int, size: int, group: int, column: str) -> pa.ChunkedArray:
    """A column of a row group, kept while photos of that group of the same file are read."""
    with pq.ParquetFile(path, **_FRUGAL) as file:
        return file.read_row_group(group, columns=[column], use_threads=False)[column]


def encoded_bytes(image: object) -> bytes:
    """The bytes of an image column's value.

    Raises:
        DataError: If it has none.
    """
    data = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(data, bytes) or not data:
        raise DataError("expected encoded bytes, got none")
    return data


def _beside(file: Path, name: str) -> Path:
    """A photo in the folder of a parquet file, or below it."""
    path = file.parent / name
    if not path.resolve().is_relative_to(file.parent.resolve()):
        raise DataError(f"expected a path inside {file.parent}, got {name!r}; move the photo there")
    return path


def read_rows(
    path: Path,
    benchmark: str,
    required: Mapping[str, Sequence[str]],
    *,
    columns: Sequence[str] | None = None,
    batch_size: int = 16,
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows of a file with their places, a few in memory at a time.

    Args:
        path: Parquet file.
        benchmark: Whose file it should be, for messages.
        required: Columns that must be there, by a column that tells the kinds of file apart;
            the first kind whose column is there is meant, and "" means any file.
        columns: Columns to read; None reads all.
        batch_size: Rows in memory at once; a row may hold several megabytes of photos.

    Raises:
        DataError: If the file is missing or damaged, or lacks a column; before the first row.
    """
    try:
        file = pq.ParquetFile(path, **_FRUGAL)
        names = file.schema_arrow.names
    except (OSError, pa.ArrowException) as error:
        got = "nothing there" if not Path(path).exists() else str(error).splitlines()[0]
        raise DataError(
            f"{path}: expected a parquet file of {benchmark}, got {got}; check the path"
        ) from error
    wanted = next(needed for mark, needed in required.items() if not mark or mark in names)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{path}: expected columns {', '.join(wanted)}, got {', '.join(names)}; "
            f"missing: {', '.join(missing)}"
        )
    return _stream(path, file, columns, batch_size)


def _stream(
    path: Path, file: pq.ParquetFile, columns: Sequence[str] | None, batch_size: int
) -> Iterator[tuple[Place, dict[str, Any]]]:
    number = 0
    with file:
        try:
            for group in range(file.num_row_groups):
                offset = 0
                batches = file.iter_batches(
                    batch_size=batch_size, row_groups=[group], columns=columns, use_threads=False
                )
                for batch in batches:
                    for row in batch.to_pylist():
                        number += 1
                        yield Place(Path(path), number, group, offset), row
                        offset += 1
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: row {number + 1} or one of the {batch_size} from there: expected UTF-8 "
                f"text, got {error}; write the file again as UTF-8"
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path}: expected a whole parquet file, got {str(error).splitlines()[0]}; "
                "copy it again"
            ) from error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Writes rows, a few in memory at a time; the file appears when it is complete.

    Args:
        path: Parquet file to write.
        rows: At least one; each with exactly the columns of the schema.
        schema: Names and types of the columns.

    Raises:
        DataError: If there are no rows, or a row has other columns.
    """
    rows = iter(rows)
    group = list(islice(rows, _ROWS_A_GROUP))
    if not group:
        raise DataError(f"{path}: expected at least one row, got none; leave the file out")
    partial = path.with_name(path.name + ".partial")
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            while group:
                _check_columns(path, group, schema)
                table = pa.Table.from_pylist([dict(row) for row in group], schema=schema)
                writer.write_table(table)
                group = list(islice(rows, _ROWS_A_GROUP))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _check_columns(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """PyArrow itself drops a column too many and fills one too few with null."""
    for row in rows:
        if set(row) != set(schema.names):
            raise DataError(
                f"{path}: row {row.get('ID', '')!r}: expected columns "
                f"{', '.join(schema.names)}, got {', '.join(row)}; fill or remove them"
            )
