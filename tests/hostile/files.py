"""Pictures, notes and vectors."""

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.world import CHECK, Case, Corpus, Spoil, cell, config, cut, doing, frame, put

picture = Corpus("picture", CHECK, 1, "row 5", "p03")


def named(name: str, content: bytes) -> Spoil:
    return doing(cell(3, "image", name), put(name, content))


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 0, before: bytes = b"") -> bytes:
    """A PNG of any size that is said and any data that follows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)).save(stream, kind, **options)
    return stream.getvalue()


picture.add("empty", put("p03.png", b""), "picture")
picture.add("cut short", cut("p03.png", 0.5), "picture")
picture.add("the signature alone", put("p03.png", b"\x89PNG\r\n\x1a\n"), "picture")
picture.add("text", put("p03.png", "no picture"), "picture")
picture.add("zeros", put("p03.png", bytes(4000)), "picture")
picture.add("HTML", put("p03.png", "<html><script>alert(1)</script></html>"), "picture")
picture.add("SVG", put("p03.png", '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"/>'), "picture")
picture.add("a wrong checksum", lambda f: put("p03.png", (f / "p03.png").read_bytes().replace(b"IDAT", b"IDAX", 1))(f), "picture")
picture.add("one pixel", put("p03.png", png(1, 1, zlib.compress(bytes(2)))), "1 x 1")
picture.add("no pixels", put("p03.png", png(0, 0, b"")), "p03.png")
picture.add("a header of 20,000 by 15,000", put("p03.png", png(20_000, 15_000, b"")), "100 million")
picture.add("a header of two billion by two billion", put("p03.png", png(2**31 - 1, 2**31 - 1, b"")), "100 million")
picture.add("a strip of 16 by 7 million", put("p03.png", png(7_000_000, 16, b"")), "100 million")
picture.add("a bomb of pixels", put("p03.png", png(60_000, 60_000, zlib.compress(bytes(60_001) * 500, 9))), "100 million", bomb=True)
picture.add(
    "a bomb of text",
    put(
        "p03.png",
        png(
            20,
            20,
            b"",
            before=b"".join(
                struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
                for c in [b"zTXta\0\0" + zlib.compress(bytes(100_000_000), 9)]
            ),
        ),
    ),
    "p03.png",
    bomb=True,
)
picture.add("JPEG cut short", named("p03.jpg", saved("JPEG")[:200]), "picture")
picture.add("GIF cut short", named("p03.gif", saved("GIF")[:60]), "picture")
picture.add("BMP of a size beyond its bytes", named("p03.bmp", saved("BMP")[:100]), "picture")
picture.add("TIFF of directories that go round", named("p03.tif", b"II*\0\x08\0\0\0\x00\x00\x08\0\0\0"), "picture")
picture.add("TIFF cut short", named("p03.tif", saved("TIFF")[:40]), "picture")
picture.add("WebP cut short", named("p03.webp", saved("WEBP")[:50]), "picture")
picture.add("JPEG 2000 cut short", named("p03.jp2", saved("JPEG2000")[:100]), "picture")
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(owned) (w) file closefile\nshowpage\n%%EOF\n"
picture.add("PostScript, which is a program", named("p03.eps", POSTSCRIPT), "not a known format")
picture.add("PostScript named png", put("p03.png", POSTSCRIPT), "not a known format")
picture.add("PDF", named("p03.pdf", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n"), "not a known format")
picture.add("a Windows metafile", named("p03.wmf", b"\xd7\xcd\xc6\x9a\0\0" + bytes(40)), "not a known format")

# --- DICOM ---------------------------------------------------------------------------------------------------------------


def dicom(
    change: Callable[[object], object] | None = None, syntax: str = "1.2.840.10008.1.2.1", raw: Callable[[bytes], bytes] | None = None
) -> Spoil:
    """A good 20 by 20 picture, changed as an object or as bytes."""

    def spoil(folder: Path) -> None:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import UID

        meta = FileMetaDataset()
        meta.TransferSyntaxUID = UID(syntax)
        meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
        meta.MediaStorageSOPInstanceUID = UID("1.2.3")
        data = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
        data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        data.Rows = data.Columns = 20
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.PixelData = np.arange(400, dtype=np.uint16).tobytes()
        if change is not None:
            change(data)
        stream = io.BytesIO()
        data.save_as(stream, enforce_file_format=True)
        content = stream.getvalue()
        named("p03.dcm", content if raw is None else raw(content))(folder)

    return spoil


def has(**values: object) -> Callable[[object], object]:
    return lambda data: [setattr(data, name, value) for name, value in values.items()]


DEFLATED = "1.2.840.10008.1.2.1.99"
picture.add("DICOM: text", named("p03.dcm", b"no picture"), "DICOM")
picture.add("DICOM: empty", named("p03.dcm", b""), "DICOM")
picture.add("DICOM: a preamble alone", named("p03.dcm", bytes(128) + b"DICM"), "DICOM")
picture.add("DICOM: rubbish after the preamble", named("p03.dcm", bytes(128) + b"DICM" + bytes(range(256)) * 4), "DICOM")
picture.add("DICOM: cut short", dicom(raw=lambda content: content[:-300]), "DICOM")
picture.add("DICOM: cut in the header", dicom(raw=lambda content: content[:200]), "DICOM")
picture.add("DICOM: no pixels", dicom(lambda data: delattr(data, "PixelData")), "DICOM")
picture.add("DICOM: no rows", dicom(lambda data: delattr(data, "Rows")), "DICOM")
picture.add("DICOM: 60,000 by 60,000", dicom(has(Rows=60_000, Columns=60_000)), "100 million")
picture.add("DICOM: one by one", dicom(has(Rows=1, Columns=1)), "1 x 1")
picture.add("DICOM: a million frames", dicom(has(NumberOfFrames=1_000_000)), "1000000 frames")
picture.add(
    "DICOM: frames that are no number", dicom(has(NumberOfFrames=1), raw=lambda c: c.replace(b"IS\x02\x001 ", b"IS\x02\x00xy")), "p03.dcm"
)
picture.add("DICOM: colour", dicom(has(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)), "colour")
picture.add(
    "DICOM: JPEG that is none",
    dicom(
        has(BitsAllocated=8),
        syntax="1.2.840.10008.1.2.1",
        raw=lambda c: c.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.50"[:20]),
    ),
    "p03.dcm",
)
picture.add("DICOM: a palette, whose numbers are no grey", dicom(has(PhotometricInterpretation="PALETTE COLOR")), "colour")


def all_nan(data: object) -> None:
    del data.PixelData
    data.FloatPixelData, data.BitsAllocated = np.full(400, np.nan, np.float32).tobytes(), 32


picture.add("DICOM: no finite number", dicom(all_nan), "finite")
picture.add("DICOM: not said how grey is meant", dicom(lambda data: delattr(data, "PhotometricInterpretation")), "DICOM")
picture.add(
    "TIFF: no finite number",
    lambda f: (cell(3, "image", "p03.tif")(f), Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(f / "p03.tif")),
    "finite",
)
picture.add("DICOM: 13 bits allocated", dicom(has(BitsAllocated=13)), "DICOM")
picture.add(
    "DICOM: a transfer syntax that nobody knows",
    dicom(raw=lambda c: c.replace(b"1.2.840.10008.1.2.1\0", b"9.9.999.99999.9.9.9\0")),
    "p03.dcm",
)
picture.add("DICOM: a bomb of packed zeros", dicom(has(PixelData=bytes(64 << 20)), syntax=DEFLATED), "packed", bomb=True)
picture.add(
    "DICOM: nested ten thousand deep",
    dicom(
        raw=lambda c: (
            c[: c.index(b"\x08\x00\x16\x00UI")] + b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 10_000
        )
    ),
    "p03.dcm",
)

# --- notes ---------------------------------------------------------------------------------------------------------------

note = Corpus("note", CHECK, 1, "row 5", "p03")
note.add("latin-1", put("p03.txt", "Müde".encode("latin-1")), "p03.txt", "UTF-8")
note.add("UTF-16", put("p03.txt", "Müde".encode("utf-16")), "p03.txt", "UTF-8")
note.add("a picture", put("p03.txt", saved("JPEG")), "p03.txt", "UTF-8")
note.add("a gigabyte of nothing", lambda f: (put("p03.txt", b"")(f), os.truncate(f / "p03.txt", 40 << 30)), "p03.txt", bomb=True)


def several(content: str | bytes, name: str = "p03n.csv") -> Spoil:
    return doing(cell(3, "note", name), put(name, content))


note.add("several: no text", several("hours,note\n1,x\n"), "'text'")
note.add("several: an hour that is a word", several("hours,text\nnoon,x\n"), "noon")
note.add("several: an hour infinite", several("hours,text\ninf,x\n"), "inf")
note.add("several: a field too many", several("hours,text\n1,x,y\n"), "3 fields")
note.add("several: a quote that never closes", several('hours,text\n1,"x\n'), "quote")
note.add("several: text named Parquet", several("text\nx\n", "p03n.parquet"), "Parquet")
note.add("several: NUL bytes", several("text\na\0b\n"), "NUL")

# --- vectors -------------------------------------------------------------------------------------------------------------

vector = Corpus("vector", CHECK, 1, "row 5", "p03")


def array(content: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, content, **options)
    return stream.getvalue()


class Trap:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path("trapped").touch, ())


def header(text: str) -> bytes:
    whole = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(whole)) + whole


vector.add("empty", put("p03.npy", b""), "numpy.save")
vector.add("text", put("p03.npy", "1,2,3"), "numpy.save")
vector.add("cut short", cut("p03.npy", 0.9), "numpy.save")
vector.add("a pickle in an array", put("p03.npy", array(np.array([Trap()], dtype=object), allow_pickle=True)), "numpy.save")
vector.add("a pickle alone", put("p03.npy", pickle.dumps(Trap())), "numpy.save")
vector.add("an archive of arrays", lambda f: (np.savez(f / "x.npz", a=np.ones(3)), (f / "x.npz").rename(f / "p03.npy")), "numpy.save")
vector.add("text as numbers", put("p03.npy", array(np.array(["a", "b"]))), "numpy.save")
vector.add("dates", put("p03.npy", array(np.array(["2150-01-01"], dtype="datetime64[D]"))), "numpy.save")
vector.add("complex numbers", put("p03.npy", array(np.array([1j]))), "numpy.save")
vector.add("two dimensions", put("p03.npy", array(np.ones((2, 2)))), "shape (2, 2)")
vector.add("none at all", put("p03.npy", array(np.ones(0))), "p03")
vector.add("a single number", put("p03.npy", array(np.array(1.0))), "shape ()")
vector.add("nan", put("p03.npy", array(np.array([1.0, np.nan]))), "number 2")
vector.add("infinite", put("p03.npy", array(np.array([np.inf]))), "number 1")
vector.add("another length", put("p03.npy", array(np.ones(4))), "length 4", "expected 3")
vector.add(
    "a header of ten billion numbers",
    put("p03.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,)}")),
    "numpy.save",
    bomb=True,
)
vector.add(
    "a header of a negative length", put("p03.npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}")), "numpy.save"
)
vector.add("a header that is a call", put("p03.npy", header("__import__('pathlib').Path('trapped').touch()")), "numpy.save")
vector.add("a header of brackets", put("p03.npy", header("(" * 9000)), "numpy.save")
vector.add("JSON that never closes", cell(3, "vector", "[1, 2"), "[1, 2")
vector.add("JSON nested a hundred thousand deep", cell(3, "vector", "[" * 100_000), "list")
vector.add("JSON of words", cell(3, "vector", '["a", "b", "c"]'), "list")
vector.add("JSON with NaN", cell(3, "vector", "[1, NaN, 3]"), "number 2")
vector.add("JSON with 1e999", cell(3, "vector", "[1, 1e999, 3]"), "number 2")
vector.add("JSON of ragged lists", cell(3, "vector", "[[1], [1, 2]]"), "list")
vector.add("JSON of five thousand digits", cell(3, "vector", f"[{'9' * 5000}, 1, 1]"), "list")
vector.add("JSON of null", cell(3, "vector", "[null, 1, 1]"))
vector.add("JSON of another length", cell(3, "vector", json.dumps([1, 2])), "length 2", "expected 3")

given = Corpus("vector in columns", CHECK, 1, "manifest.csv")
INSTEAD = ("vector: {kind: embedding, encoder: mlp, hidden: 4}", "vector: {kind: embedding, encoder: mlp, hidden: 4, columns: [a, b]}")


def columns(a: str, b: str) -> Spoil:
    return doing(config(*INSTEAD), frame(lambda f: f.assign(a=a, b=b)))


given.add("one of two empty", columns("1", ""), "p00", "'b'")
given.add("a word", columns("1", "x"), "p00", "'b'", "x")
given.add("infinite", columns("inf", "1"), "p00", "'a'")

CASES: list[Case] = [*picture.cases, *note.cases, *vector.cases, *given.cases]
