"""Picture files as arrays: JPEG, PNG and other formats of pixels, and DICOM; refused before decoding where they are too large."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cm2pyro.errors import DataError

Pixels = NDArray[np.uint8]
MOST_PIXELS = 100_000_000  # a chest film has 5 to 20 million; more would not fit into memory beside others
LEAST_SIDE = 16  # pixels; below there is nothing to see
_DICOM = (".dcm", ".dicom")
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # not what Pillow hands on to a program, as PostScript
_DEFLATED = "1.2.840.10008.1.2.1.99"
_FILTERS = RLock()


@contextmanager
def _silent(category: type[Warning]) -> Iterator[None]:
    """Warnings dropped. Their filters belong to the process: two threads that change and restore them at once would leave them changed."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        yield


def read_picture(path: Path, where: str, side: int | None = None) -> Pixels:
    """A picture as 8-bit grey (H, W), or as colour (H, W, 3) where its channels differ.

    Grey levels of more than 8 bits are stretched from the picture's own minimum and maximum to 0 … 255. Transparency is
    dropped, a turn noted in the file is applied, of several frames the first is read; a DICOM file is windowed as it says,
    and inverted where white means zero.

    Args:
        path: the file. where: how messages name it. side: the least height and width that are needed; a larger JPEG may
            then be decoded at a half, a quarter or an eighth of its size, which is several times quicker.

    Raises:
        DataError: not a picture, cut short, less than 16 pixels high or wide, more than 100 million pixels (known from the header).
    """
    if path.suffix.lower() in _DICOM:
        return _read_dicom(path, where)
    try:
        with _silent(Image.DecompressionBombWarning):  # our own limit is below
            opened = Image.open(path, formats=_FORMATS)
        with opened:
            _check_size(opened.width, opened.height, where)
            if side is not None and opened.mode in ("L", "RGB"):
                opened.draft(opened.mode, (side, side))
            opened.load()
            return _pixels(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise DataError(f"{where}: {_too_large('more than 178 million')}") from error
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them: OSError, SyntaxError, struct.error, …
        raise DataError(
            f"{where}: cannot be read as a picture ({_reason(error)}); expected a whole JPEG, PNG or DICOM file; "
            "replace it, or leave the cell empty"
        ) from error


def _check_size(width: int, height: int, where: str) -> None:
    if width * height > MOST_PIXELS:
        raise DataError(f"{where}: {_too_large(f'{width} x {height}')}")
    if min(width, height) < LEAST_SIDE:
        raise DataError(
            f"{where}: the picture has {width} x {height} pixels, expected at least {LEAST_SIDE} each way; "
            "replace it, or leave the cell empty"
        )


def _too_large(found: str) -> str:
    return f"the picture has {found} pixels, expected at most {MOST_PIXELS // 1_000_000} million in all; scale it down"


def _reason(error: Exception) -> str:
    # Pillow repeats the whole path; the message names the file already.
    return "not a known format" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())[:80]


def _pixels(image: Image.Image) -> Pixels:
    if image.mode == "F" or image.mode.startswith("I"):  # 16 and 32 bits
        return stretch(np.asarray(image, dtype=np.float64))
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"))
    colour = np.asarray(image.convert("RGB"))
    first = colour[..., :1]
    return np.ascontiguousarray(colour[..., 0]) if bool((colour == first).all()) else colour


def stretch(values: NDArray[Any]) -> Pixels:
    """Numbers (H, W) from their minimum and maximum to 0 … 255; a constant picture, and what is not finite, becomes 0.

    Raises ValueError if nothing is finite.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("holds no finite number")
    low, high = values[finite].min(), values[finite].max()
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.where(finite, np.rint((np.where(finite, values, low) - low) / (high - low) * 255), 0).astype(np.uint8)


def _read_dicom(path: Path, where: str) -> Pixels:
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise DataError(f"{where}: is a DICOM file, and pydicom is not installed; pip install 'cm2pyro[dicom]'") from error
    try:
        with _silent(Warning):  # pydicom's remarks on deviations that it could read all the same
            return _decode_dicom(path, where)
    except DataError:
        raise
    except Exception as error:  # as above: a damaged file makes the decoders raise anything
        raise DataError(
            f"{where}: cannot be read as DICOM ({_reason(error)}); expected a whole file with pixels; replace it, or leave the cell empty"
        ) from error


def _decode_dicom(path: Path, where: str) -> Pixels:
    import pydicom
    from pydicom.filereader import read_file_meta_info
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    if read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
        # pydicom would unpack the whole file at once, whatever becomes of it.
        raise DataError(
            f"{where}: the DICOM file is packed (deflate), which is not read; expected another transfer syntax; export it plainly"
        )
    header = pydicom.dcmread(path, stop_before_pixels=True)
    frames = int(getattr(header, "NumberOfFrames", 1) or 1)
    _check_size(int(header.Columns), int(header.Rows), where)
    # A palette's indices are no grey levels, though there is one for each pixel.
    if frames > 1 or int(getattr(header, "SamplesPerPixel", 1)) > 1 or not str(header.PhotometricInterpretation).startswith("MONOCHROME"):
        raise DataError(f"{where}: the DICOM file holds {frames} frames or colour, expected one grey picture; export the one that is meant")
    data = pydicom.dcmread(path)
    grey = stretch(apply_voi_lut(apply_modality_lut(data.pixel_array, data), data))
    return 255 - grey if str(getattr(data, "PhotometricInterpretation", "")) == "MONOCHROME1" else grey
