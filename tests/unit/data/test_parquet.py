import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unsee.data.images import Photo
from unsee.data.parquet import IMAGE, Place, read_rows, write_rows
from unsee.errors import DataError

SCHEMA = pa.schema([("image", IMAGE), ("images", pa.list_(IMAGE)), ("ID", pa.string())])


def png(number):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number, 0, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def row(number):
    image = {"bytes": png(number), "path": None}
    return {"image": image, "images": [image, {**image, "bytes": png(200)}], "ID": str(number)}


@pytest.fixture
def file(tmp_path):
    """Seven rows in groups of three."""
    path = tmp_path / "some.parquet"
    table = pa.Table.from_pylist([row(n) for n in range(7)], schema=SCHEMA)
    pq.write_table(table, path, row_group_size=3)
    return path


def rows_of(path, **options):
    return list(read_rows(path, "B", {"": ("image",)}, **options))


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_photos_are_read_again_from_their_row(file, batch_size):
    for place, values in rows_of(file, batch_size=batch_size):
        number = int(values["ID"])
        assert place.number == number + 1
        photo = place.photo(values["image"], "image")
        assert photo.data is None
        assert photo.read() == png(number)
        assert photo.open().getpixel((0, 0)) == (number, 0, 7)
        assert place.photo(values["images"][1], "images", 1).read() == png(200)


def test_equal_bytes_are_equal_photos_wherever_they_lie(file):
    (first, one), (second, other) = rows_of(file)[:2]
    assert first.photo(one["images"][1], "images", 1) == second.photo(other["images"][1], "images")
    assert first.photo(one["image"], "image") != second.photo(other["image"], "image")
    photo = first.photo(one["image"], "image")
    assert photo.key == Photo(data=png(0)).key
    assert photo.name == f"{file}: row 1"


def test_only_wanted_columns_are_read(file):
    assert [values for _, values in rows_of(file, columns=["ID"])][6] == {"ID": "6"}


def test_a_file_that_changed_is_refused(file):
    place, values = rows_of(file)[0]
    photo = place.photo(values["image"], "image")
    pq.write_table(pa.Table.from_pylist([row(9)], schema=SCHEMA), file)
    for change in (lambda: None, lambda: os.truncate(file, 20), file.unlink):
        change()
        with pytest.raises(
            DataError, match=r"some\.parquet: row 1: expected the photo that was th"
        ):
            photo.read()


def test_a_photo_beside_the_file(file):
    place = Place(file, 1, 0, 0)
    (file.parent / "photos").mkdir()
    (file.parent / "photos" / "a.png").write_bytes(png(3))
    photo = place.photo({"bytes": None, "path": "photos/a.png"}, "image")
    assert photo.path == file.parent / "photos" / "a.png"
    with pytest.raises(DataError, match="expected a path inside"):
        place.photo({"bytes": None, "path": "../a.png"}, "image")
    with pytest.raises(DataError, match="expected a readable photo, got No such file"):
        place.photo({"bytes": None, "path": "b.png"}, "image")
    with pytest.raises(DataError, match="expected encoded bytes, got none"):
        place.photo({"bytes": None, "path": None}, "image")
    with pytest.raises(DataError, match="1 bytes that do not decode"):
        place.photo({"bytes": b"x", "path": None}, "image")


def test_writing_refuses_other_columns_and_leaves_nothing(tmp_path):
    schema = pa.schema([("ID", pa.string())])
    with pytest.raises(DataError, match="row '7': expected columns ID, got ID, x; fill or"):
        write_rows(tmp_path / "x.parquet", [{"ID": "7", "x": 1}], schema)
    assert list(tmp_path.iterdir()) == []


def test_reading_holds_a_row_group_and_not_the_file(tmp_path):
    """Forty photos of a megabyte each in groups of two: never sixteen megabytes of Arrow's."""
    path = tmp_path / "large.parquet"
    noise = np.random.default_rng(0)
    schema = pa.schema([("image", IMAGE)])
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(20):
            images = [{"bytes": png(0) + noise.bytes(1 << 20), "path": None} for _ in range(2)]
            writer.write_table(pa.table({"image": images}, schema=schema))
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    peak, photos = 0, []
    for place, values in read_rows(path, "B", {"": ("image",)}):
        photos.append(place.photo(values["image"], "image"))
        peak = max(peak, pool.bytes_allocated() - before)
    assert len(set(photos)) == 40
    assert peak < 16 << 20
    assert len(photos[39].read()) == len(png(0)) + (1 << 20)


def test_text_that_is_not_utf_8(tmp_path):
    path = tmp_path / "a.parquet"
    texts = pa.array([b"Z\xc3\xbcrich", b"Z\xfcrich"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"a": texts}), path)
    rows = read_rows(path, "B", {"": ("a",)}, batch_size=1)
    assert next(rows)[1] == {"a": "Zürich"}
    with pytest.raises(DataError) as caught:
        next(rows)
    assert str(caught.value).startswith(
        f"{path}: row 2 or one of the 1 from there: expected UTF-8 text, got 'utf-8' codec can't "
    )
    assert str(caught.value).endswith("; write the file again as UTF-8")
