"""Picture files against arrays whose content is known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm2pyro.data.pictures import read_picture, stretch
from cm2pyro.errors import DataError
from tests.data.png import png_header


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)


def test_eight_bit_grey_comes_back_exactly(tmp_path: Path, grey: np.ndarray) -> None:
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", "a"), grey)


def test_colour_stays_colour_and_grey_saved_as_colour_becomes_grey(tmp_path: Path, grey: np.ndarray) -> None:
    colour = np.stack([grey, grey.T[::-1].T, 255 - grey], -1)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "colour.png", "a"), colour)
    np.testing.assert_array_equal(read_picture(tmp_path / "grey.png", "a"), grey)


def test_transparency_and_palettes_are_read(tmp_path: Path, grey: np.ndarray) -> None:
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(255 - grey)]).save(tmp_path / "alpha.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "alpha.png", "a"), grey)
    np.testing.assert_array_equal(read_picture(tmp_path / "palette.png", "a"), grey)


def test_sixteen_bits_are_stretched(tmp_path: Path) -> None:
    values = np.linspace(1000, 5000, 40 * 30).reshape(40, 30).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = np.rint((values - 1000.0) / 4000 * 255)
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png", "a"), expected)


def test_a_turn_noted_in_the_file_is_applied(tmp_path: Path, grey: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", "a"), np.rot90(grey, -1))


def test_a_large_jpeg_is_decoded_smaller_but_not_below_the_side(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(800), np.arange(600)) / 1400 * 255
    Image.fromarray(smooth.astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    small = read_picture(tmp_path / "a.jpg", "a", side=150)
    assert small.shape == (200, 150)
    np.testing.assert_allclose(small, smooth.reshape(200, 4, 150, 4).mean((1, 3)), atol=3)


def test_stretch() -> None:
    np.testing.assert_array_equal(stretch(np.array([[-1.0, 0.0], [1.0, np.nan]])), [[0, 128], [255, 0]])
    assert not stretch(np.full((3, 3), 7.0)).any()
    with pytest.raises(ValueError, match="no finite number"):
        stretch(np.full((3, 3), np.nan))


@pytest.mark.parametrize(("width", "height"), [(20_000, 15_000), (10_001, 10_000)])
def test_too_large_is_refused_before_decoding(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    with pytest.raises(DataError, match=r"row 7: the picture has .* pixels, expected at most 100 million"):
        read_picture(tmp_path / "a.png", "row 7")


@pytest.mark.parametrize("size", [(1, 1), (15, 100), (100, 15)])
def test_too_small_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"row 7: the picture has {size[0]} x {size[1]} pixels, expected at least 16"):
        read_picture(tmp_path / "a.png", "row 7")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.98])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_cut_short_is_refused(tmp_path: Path, grey: np.ndarray, name: str, share: float) -> None:
    Image.fromarray(np.tile(grey, (5, 5))).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="row 7: cannot be read as a picture"):
        read_picture(tmp_path / name, "row 7")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff", b"GIF89a", b"DICM" * 40])
@pytest.mark.parametrize("name", ["a.jpg", "a.dcm"])
def test_other_content_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="row 7: cannot be read as") as caught:
        read_picture(tmp_path / name, "row 7")
    assert "\n" not in str(caught.value)


def _dicom(path: Path, values: np.ndarray, interpretation: str = "MONOCHROME2", **attributes: object) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, interpretation
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    for name, value in attributes.items():
        setattr(data, name, value)
    data.PixelData = values.astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def test_dicom_is_stretched_and_inverted_where_white_means_zero(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (40, 30))
    expected = np.rint((values - values.min()) / (values.max() - values.min()) * 255)
    _dicom(tmp_path / "a.dcm", values)
    _dicom(tmp_path / "b.dcm", values, "MONOCHROME1")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.dcm", "a"), expected)
    np.testing.assert_array_equal(read_picture(tmp_path / "b.dcm", "a"), 255 - expected)


def test_the_window_of_a_dicom_is_applied(tmp_path: Path) -> None:
    values = np.linspace(0, 4000, 40 * 30).round().astype(int).reshape(40, 30)
    _dicom(tmp_path / "a.dcm", values, WindowCenter=2000, WindowWidth=1001)
    # Part 3 of the standard, C.11.2.1.2: linear between centre − 0.5 ± (width − 1) / 2, constant outside.
    clipped = np.clip(((values - 1999.5) / 1000 + 0.5), 0, 1)
    np.testing.assert_allclose(read_picture(tmp_path / "a.dcm", "a"), clipped * 255, atol=0.51)


def test_dicom_with_frames_or_too_many_pixels_is_refused(tmp_path: Path) -> None:
    values = np.zeros((40, 30), dtype=int)
    _dicom(tmp_path / "a.dcm", values, NumberOfFrames=2)
    with pytest.raises(DataError, match="2 frames"):
        read_picture(tmp_path / "a.dcm", "row 7")
    _dicom(tmp_path / "b.dcm", values, Rows=20_000, Columns=15_000)
    with pytest.raises(DataError, match="at most 100 million"):
        read_picture(tmp_path / "b.dcm", "row 7")


def test_without_pydicom_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "a.dcm").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install 'cm2pyro\[dicom\]'"):
        read_picture(tmp_path / "a.dcm", "row 7")
