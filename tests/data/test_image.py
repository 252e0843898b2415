"""Kind `image`: which pixels are kept, grey and colour, what is missing, and what is refused with file and row."""

import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from cm2pyro.config import Modality
from cm2pyro.data import image as image_module
from cm2pyro.data.columns import Sparse
from cm2pyro.data.image import Image, central_square
from cm2pyro.data.kinds import make_kind
from cm2pyro.data.manifest import Manifest, read_manifest
from cm2pyro.errors import ConfigError
from tests.data.png import png_header
from tests.refusals import refusal

SIZE = 32


def kind(size: int = SIZE, resize: int | None = SIZE, **modality: Any) -> Image:
    return Image("x", Modality(kind="image", encoder="cnn", **modality), ("pixels",), size=size, resize=resize)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def manifest_of(folder: Path, cells: list[str]) -> Manifest:
    (folder / "m.csv").write_text("sample_id,x\n" + "".join(f"s{i},{cell}\n" for i, cell in enumerate(cells)))
    return read_manifest(folder / "m.csv")


def pixels(column: Any, n: int) -> torch.Tensor:
    assert isinstance(column, Sparse)
    return column[torch.arange(n)]


# --- the central square ----------------------------------------------------------------------------------------------


def test_a_square_of_the_right_size_stays_as_it_is() -> None:
    grey, colour = torch.from_numpy(noise((SIZE, SIZE))), torch.from_numpy(noise((SIZE, SIZE, 3)))
    assert central_square(grey, SIZE).equal(grey)
    assert central_square(colour, SIZE).equal(colour.permute(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(32, 80), (80, 32), (32, 34)])
def test_the_centre_of_the_longer_side_is_kept(height: int, width: int) -> None:
    grey = noise((height, width))
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    np.testing.assert_array_equal(central_square(torch.from_numpy(grey), SIZE).numpy(), grey[top : top + SIZE, left : left + SIZE])


@pytest.mark.parametrize(("height", "width"), [(96, 64), (64, 96), (64, 64)])
def test_halving_averages_like_pillow(height: int, width: int) -> None:
    grey = noise((height, width))
    scaled = np.asarray(Pillow.fromarray(grey).resize((width // 2, height // 2), Pillow.Resampling.BILINEAR))
    top, left = (height // 2 - SIZE) // 2, (width // 2 - SIZE) // 2
    found = central_square(torch.from_numpy(grey), SIZE).numpy().astype(int)
    # Both widen the triangle to the scale; they differ by rounding between the two passes.
    assert np.abs(found - scaled[top : top + SIZE, left : left + SIZE]).max() <= 1


def test_a_ramp_stays_a_ramp_when_enlarged() -> None:
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    found = central_square(torch.from_numpy(ramp), SIZE).numpy().astype(float)
    inner = np.clip((np.arange(SIZE) + 0.5) / 2 - 0.5, 0, 15) * 10
    np.testing.assert_allclose(found, np.tile(inner, (SIZE, 1)), atol=1)


@pytest.mark.parametrize("shape", [(16, 200_000), (200_000, 16), (20, 90_000, 3)])
def test_a_strip_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    """Scaled whole, a strip of 16 pixels and 100 million in all would have billions."""
    from torchvision.transforms.v2 import functional

    seen: list[int] = []
    resize = functional.resize

    def counted(x: torch.Tensor, size: list[int], **options: Any) -> torch.Tensor:
        out: torch.Tensor = resize(x, size, **options)
        seen.append(out[0].numel())
        return out

    monkeypatch.setattr(functional, "resize", counted)
    strip = np.zeros(shape, dtype=np.uint8)
    middle = tuple(slice(n // 2 - 8, n // 2 + 8) for n in shape[:2])
    strip[middle] = 200
    square = central_square(torch.from_numpy(strip), SIZE)
    assert square.shape[-2:] == (SIZE, SIZE)
    assert int(square[..., SIZE // 2, SIZE // 2].max()) == 200
    assert max(seen) <= 50 * SIZE * SIZE


def test_resize_and_size() -> None:
    assert kind(size=224, resize=None).side == 256  # the paper's
    assert kind(size=64, resize=None).side == 73
    with pytest.raises(ConfigError, match=r"modalities\.x\.resize: found 31, expected at least size, 32"):
        kind(resize=31)
    with pytest.raises(ConfigError, match=r"modalities\.x\.table"):
        kind(table="t.csv")
    for size in (15, 4096, "big", True):
        with pytest.raises(ConfigError, match=r"modalities\.x\.size"):
            make_kind("x", Modality(kind="image", encoder="cnn", size=size), ("pixels",))  # type: ignore[call-arg]


# --- grey, colour, missing -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Pillow.fromarray(noise((SIZE, SIZE))).save(tmp_path / "grey.png")
    Pillow.fromarray(noise((SIZE, SIZE), 1)).save(tmp_path / "grey2.png")
    Pillow.fromarray(noise((SIZE, SIZE, 3), 2)).save(tmp_path / "colour.png")
    return tmp_path


def test_grey_pictures_have_one_channel_and_missing_rows_are_zero(folder: Path) -> None:
    manifest = manifest_of(folder, ["grey.png", "", "grey2.png", ""])
    k = kind()
    raw = k.read(manifest)
    assert k.observed(raw).tolist() == [True, False, True, False]
    k.fit(raw, np.array([0, 1]))
    assert k.shapes() == {"pixels": (1, SIZE, SIZE)}
    column = k.transform(raw)["pixels"]
    assert isinstance(column, Sparse)
    assert len(column.values) == 2  # a missing picture takes no memory
    found = pixels(column, 4)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found[0, 0].numpy(), noise((SIZE, SIZE)))
    np.testing.assert_array_equal(found[2, 0].numpy(), noise((SIZE, SIZE), 1))
    assert not found[[1, 3]].any()


def test_after_a_grey_fit_colour_is_read_as_luma(folder: Path) -> None:
    manifest = manifest_of(folder, ["grey.png", "colour.png"])
    k = kind()
    raw = k.read(manifest)
    k.fit(raw, np.array([0]))  # the colour picture is no training row
    found = pixels(k.transform(raw)["pixels"], 2)[1, 0].numpy().astype(int)
    luma = np.asarray(Pillow.open(folder / "colour.png").convert("L")).astype(int)
    assert np.abs(found - luma).max() <= 1


def test_after_a_colour_fit_grey_fills_all_channels(folder: Path) -> None:
    manifest = manifest_of(folder, ["grey.png", "colour.png"])
    k = kind()
    raw = k.read(manifest)
    k.fit(raw, np.arange(2))
    assert k.shapes() == {"pixels": (3, SIZE, SIZE)}
    found = pixels(k.transform(raw)["pixels"], 2).numpy()
    for channel in range(3):
        np.testing.assert_array_equal(found[0, channel], noise((SIZE, SIZE)))
    np.testing.assert_array_equal(found[1], noise((SIZE, SIZE, 3), 2).transpose(2, 0, 1))


def test_what_was_learned_survives_json(folder: Path) -> None:
    manifest = manifest_of(folder, ["grey.png", "colour.png"])
    fitted, loaded = kind(), kind()
    raw = fitted.read(manifest)
    fitted.fit(raw, np.array([0]))
    loaded.load(json.loads(json.dumps(fitted.state())))
    assert loaded.shapes() == fitted.shapes()
    assert pixels(loaded.transform(raw)["pixels"], 2).equal(pixels(fitted.transform(raw)["pixels"], 2))


def test_no_picture_at_all_and_no_column_at_all(folder: Path) -> None:
    fitted = kind()
    fitted.fit(fitted.read(manifest_of(folder, ["grey.png"])), np.array([0]))
    for manifest in (manifest_of(folder, ["", ""]), read_manifest(_without_column(folder))):
        raw = fitted.read(manifest)
        assert not fitted.observed(raw).any()
        assert pixels(fitted.transform(raw)["pixels"], 2).shape == (2, 1, SIZE, SIZE)


def _without_column(folder: Path) -> Path:
    (folder / "bare.csv").write_text("sample_id\na\nb\n")
    return folder / "bare.csv"


def test_the_column_of_paths_can_have_another_name(folder: Path) -> None:
    k = kind(column="cxr")
    (folder / "m.csv").write_text("sample_id,cxr\na,grey.png\n")
    assert k.observed(k.read(read_manifest(folder / "m.csv"))).tolist() == [True]


# --- what is refused -------------------------------------------------------------------------------------------------


def _broken(folder: Path, what: str) -> str:
    name = f"{what}.{'jpg' if what == 'cut' else 'png'}"
    path = folder / name
    if what == "cut":
        Pillow.fromarray(noise((64, 64, 3))).save(path)
        path.write_bytes(path.read_bytes()[:700])
    elif what == "dot":
        Pillow.fromarray(noise((1, 1))).save(path)
    elif what == "huge":
        path.write_bytes(png_header(20_000, 15_000))
    elif what == "text":
        path.write_text("not a picture")
    elif what == "empty":
        path.write_bytes(b"")
    return name


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("cut", "cannot be read as a picture"),
        ("dot", "1 x 1 pixels, expected at least 16"),
        ("huge", "million pixels, expected at most 100 million"),
        ("text", "not a known format"),
        ("empty", "not a known format"),
        ("absent", "is not there"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_row(folder: Path, what: str, says: str) -> None:
    manifest = manifest_of(folder, ["grey.png", "", _broken(folder, what)])
    refusal(lambda: kind().read(manifest), what, "m.csv, row 4 (sample_id s2)", says)


def test_a_path_outside_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Pillow.fromarray(noise((SIZE, SIZE))).save(elsewhere / "a.png")
    (folder / "link.png").symlink_to(elsewhere / "a.png")
    for cell in (f"../{elsewhere.name}/a.png", str(elsewhere / "a.png"), "link.png"):
        refusal(
            lambda cell=cell: kind().read(manifest_of(folder, ["grey.png", cell])), "row 3 (sample_id s1)", "leaves the manifest's folder"
        )


def test_the_first_wrong_row_is_named_whichever_thread_is_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 3 is slow to fail, rows 4 to 9 fail at once: row 3 is named, every time."""
    slow = _broken(folder, "text")
    read = image_module.read_picture

    def delayed(path: Path, *rest: Any) -> Any:
        if path.name == slow:
            time.sleep(0.05)
        return read(path, *rest)

    monkeypatch.setattr(image_module, "read_picture", delayed)
    manifest = manifest_of(folder, ["grey.png", slow, *["absent.png"] * 6])
    for _ in range(3):
        refusal(lambda: kind().read(manifest), "row 3 (sample_id s1)", "not a known format")


def test_threads_leave_the_filters_of_warnings_as_they_were(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They belong to the process; restored in another order than they were changed, everything stayed silent."""
    opened = Pillow.open

    def slowly(path: Path, formats: tuple[str, ...]) -> Any:
        time.sleep(0.002 * (int(path.stem[1:]) % 3))
        return opened(path, formats=formats)

    names = [f"p{i}.png" for i in range(24)]
    for name in names:
        Pillow.fromarray(noise((SIZE, SIZE))).save(folder / name)
    monkeypatch.setattr(Pillow, "open", slowly)
    before = list(warnings.filters)
    kind().read(manifest_of(folder, names))
    assert warnings.filters == before
