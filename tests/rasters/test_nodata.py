"""Pixels without data get the id 255, which is the nodata value of the GeoTIFF."""

import shutil

import cv2
import numpy as np
import pytest
import rasterio
from conftest import scene
from made import HALF, UTM, raster, values, with_nodata

from paddleseg_infer.errors import ImageError
from paddleseg_infer.place import Place
from paddleseg_infer.segmenter import Segmenter

PICTURE = np.moveaxis(scene(48, 64), 2, 0)

MASKED = {
    "value": (with_nodata(values(5, dtype="int16"), -9999), {"nodata": -9999}),
    "nan": (with_nodata(values(5, dtype="float32"), np.nan), {"nodata": float("nan")}),
    "huge": (with_nodata(values(5, dtype="float32"), -3.4e38), {"nodata": -3.4e38}),
    "mask": (values(5), {"mask": HALF}),
}


@pytest.fixture(scope="module")
def masked(run_of):
    return run_of({name: (bands, {**UTM, **more}) for name, (bands, more) in MASKED.items()})


@pytest.mark.parametrize("name", MASKED)
def test_pixels_without_data_are_255_which_is_nodata(masked, odd, name):
    with rasterio.open(masked[1] / f"{name}.tif") as mask:
        labels = mask.read(1)
        assert mask.nodata == 255
        assert np.array_equal(mask.read_masks(1) > 0, HALF)
    assert (labels[~HALF] == 255).all()
    assert (labels[HALF] < 5).all()
    segmenter = Segmenter(odd / "channels_5" / "deploy.yaml", device="cpu")
    assert np.array_equal(segmenter(masked[0] / f"{name}.tif"), labels)


@pytest.mark.parametrize("name", MASKED)
def test_windows_give_the_same_nodata(masked, run_of, name):
    bands, more = MASKED[name]
    _, out = run_of({name: (bands, {**UTM, **more})}, "channels_5", "--crop_size", "32", "32")
    with rasterio.open(out / f"{name}.tif") as mask:
        assert np.array_equal(mask.read_masks(1) > 0, HALF)


def test_the_alpha_band_of_a_picture_says_where_there_is_no_data(run_of, models):
    rgba = np.concatenate([PICTURE, 255 * HALF[None].astype(np.uint8)])
    options = {**UTM, "photometric": "rgb", "alpha": "yes"}
    folder, out = run_of({"a": (rgba, options)}, "argmax")
    with rasterio.open(out / "a.tif") as mask:
        labels = mask.read(1)
    assert (labels[~HALF] == 255).all()
    as_picture = cv2.imread(str(folder / "a.tif"), cv2.IMREAD_COLOR)
    whole = Segmenter(models / "argmax" / "deploy.yaml", device="cpu")(as_picture)
    assert np.array_equal(labels[HALF], whole[HALF])


def test_a_raster_that_is_all_nodata_gets_a_mask_of_nodata(run_of):
    _, out = run_of({"a": (np.zeros((5, 48, 64), np.uint16), {**UTM, "nodata": 0})})
    with rasterio.open(out / "a.tif") as mask:
        assert (mask.read(1) == 255).all()


def test_nan_where_there_is_data_is_refused(odd, tmp_path):
    bands = with_nodata(values(5, dtype="float32"), np.nan)
    bands[2, 5, 40] = np.nan
    path = raster(tmp_path / "a.tif", bands, nodata=float("nan"), **UTM)
    segmenter = Segmenter(odd / "channels_5" / "deploy.yaml", device="cpu")
    # Only where all used bands are nodata, there is no data.
    with pytest.raises(ImageError, match="1 of its 15360 values are NaN, infinite or above"):
        segmenter(path)


@pytest.mark.parametrize(
    ("labels", "has_class_255"),
    [(np.zeros((2, 2), np.uint8), True), (np.zeros((2, 2), np.uint16), False)],
)
def test_a_model_with_a_class_255_is_refused_where_there_is_no_data(labels, has_class_255):
    place = Place(has_mask=True, valid=np.eye(2, dtype=bool))
    with pytest.raises(ImageError, match="255 is also a class of this model"):
        place.for_labels(labels, has_class_255)
    # If all pixels have data, 255 is no nodata value.
    assert not Place(has_mask=True).for_labels(labels, has_class_255).has_mask


def test_the_network_of_256_classes_knows_it(odd, tmp_path):
    path = raster(tmp_path / "a.tif", *MASKED["value"][:1], nodata=-9999, **UTM)
    segmenter = Segmenter(odd / "classes_256" / "deploy.yaml", device="cpu", bands=(1, 2, 3))
    with pytest.raises(ImageError, match="255 is also a class of this model"):
        segmenter(path)


def test_class_255_of_a_model_that_declares_no_classes_is_no_nodata(odd, tmp_path):
    """This model gives each pixel the label 255."""
    segmenter = Segmenter(odd / "ids_undeclared" / "deploy.yaml", device="cpu", bands=(1, 2, 3))
    half = raster(tmp_path / "half.tif", MASKED["value"][0], nodata=-9999, **UTM)
    with pytest.raises(ImageError, match="255 is also a class of this model"):
        segmenter(half)
    whole = raster(tmp_path / "whole.tif", values(5), nodata=9999, **UTM)
    assert (segmenter(whole) == 255).all()


@pytest.mark.parametrize("order", [None, "4 1 2 3 5"])
def test_an_alpha_band_beside_any_number_of_bands_is_a_mask(run_of, order):
    bands = values(6)
    bands[3] = 65535 * HALF
    more = ["--bands", *order.split()] if order else ["--bands", *"12356"]
    folder, _ = run_of({"a": (bands, UTM)})
    with rasterio.open(folder / "a.tif", "r+") as file:
        names = [rasterio.enums.ColorInterp.gray] * 6
        names[3] = rasterio.enums.ColorInterp.alpha
        file.colorinterp = names
    _, out = run_of({}, "channels_5", "--image_path", folder, *more)
    with rasterio.open(out / "a.tif") as mask:
        assert np.array_equal(mask.read_masks(1) > 0, HALF)


@pytest.mark.parametrize("bands", ["1 2 3 5 4", "4 1 2 3 5"])
@pytest.mark.parametrize("how", ["mask", "nodata"])
def test_a_mask_or_a_nodata_value_counts_beside_an_alpha_band(odd, tmp_path, bands, how):
    """The alpha band says that there is data everywhere."""
    pixels = values(5)
    pixels[3] = 65535
    if how == "nodata":
        pixels[[0, 1, 2, 4]] = np.where(HALF, pixels[[0, 1, 2, 4]], 0)
    path = raster(tmp_path / "a.tif", pixels, **({"nodata": 0} if how == "nodata" else {}), **UTM)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.colorinterp = [
            rasterio.enums.ColorInterp.alpha if band == 4 else rasterio.enums.ColorInterp.gray
            for band in range(1, 6)
        ]
        if how == "mask":
            file.write_mask(HALF)
    segmenter = Segmenter(
        odd / "channels_5" / "deploy.yaml", device="cpu", bands=list(map(int, bands.split()))
    )
    assert np.array_equal(segmenter(path) == 255, ~HALF)


def test_a_mask_of_single_bands_is_a_mask(run_of, tmp_path):
    folder, _ = run_of({"a": (values(5), UTM)})
    flags = {f"INTERNAL_MASK_FLAGS_{number}": "0" for number in range(1, 6)}
    masks = np.repeat(255 * HALF[None].astype(np.uint8), 5, 0)
    raster(tmp_path / "m.tif", masks, tags=flags)
    shutil.move(tmp_path / "m.tif", folder / "a.tif.msk")
    _, out = run_of({}, "channels_5", "--image_path", folder)
    with rasterio.open(out / "a.tif") as found:
        assert np.array_equal(found.read_masks(1) > 0, HALF)
