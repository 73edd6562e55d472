"""Large TIFFs are read, run and written one row of windows at a time."""

import cv2
import numpy as np
import pytest
import rasterio
from conftest import masks
from made import HALF, UTM, raster, values, with_nodata
from windowed import RGB, TILES, ids, parts, save

from paddleseg_infer import label_maps, strips
from paddleseg_infer.sources import large
from paddleseg_infer.sources.reading import Reading

pytestmark = pytest.mark.usefixtures("every_raster_is_large")

RASTERS = {
    "picture": (RGB, {"photometric": "rgb", **UTM}, "logits"),
    "picture in tiles": (RGB, {"photometric": "rgb", **TILES, **UTM}, "argmax"),
    "planes": (RGB, {"photometric": "rgb", "interleave": "band"}, "foreground"),
    "no place": (RGB, {"photometric": "rgb", "nodata": 0}, "logits"),
    "picture with nodata": (RGB, {"photometric": "rgb", "nodata": 0, **UTM}, "logits"),
    "many classes": (RGB, {"photometric": "rgb", **UTM}, "labels300"),
    "bands": (values(6, 150, 200), {**TILES, **UTM}, "channels_5"),
    "nodata": (
        with_nodata(values(5, dtype="int16"), -9999),
        {"nodata": -9999, **UTM},
        "channels_5",
    ),
    "nan": (
        with_nodata(values(5, dtype="float32"), np.nan),
        {"nodata": float("nan"), **UTM},
        "channels_5",
    ),
    "mask": (values(5), {"mask": HALF, **TILES, **UTM}, "channels_5"),
}


@pytest.mark.parametrize("name", RASTERS)
@pytest.mark.parametrize("how", [{}, {"blend": "gaussian"}, {"min_area": 40}], ids=str)
def test_the_labels_are_those_of_the_whole_raster(odd, models, tmp_path, monkeypatch, name, how):
    bands, options, model = RASTERS[name]
    if "blend" in how and model in ("argmax", "labels300"):
        pytest.skip("labels can't be blended")
    folder = (odd if model.startswith("channels") else models) / model
    kinds = ("label",) if model == "labels300" else ("mask", "label")
    path = raster(tmp_path / "a.tif", bands, **options)
    result, _ = save(folder, path, tmp_path / "rows", (*kinds, "geojson"), **how)
    assert result.error is None, result.error
    assert result.suffix == ".tif"
    monkeypatch.setattr(large, "LARGE", 1 << 40)
    whole, _ = save(folder, path, tmp_path / "whole", (*kinds, "geojson"), **how)
    assert whole.error is None, whole.error
    polygons = [tmp_path / each / "geojson" / "a.geojson" for each in ("rows", "whole")]
    assert polygons[0].read_bytes() == polygons[1].read_bytes()
    assert (result.size, result.pixels) == (whole.size, whole.pixels)
    for kind in kinds:
        target = "a" if kind == "mask" else "label/a"
        rows = tmp_path / "rows" / f"{target}.tif"
        assert np.array_equal(ids(rows), ids(tmp_path / "whole" / f"{target}{whole.suffix}"))
        if whole.suffix == ".tif":
            with (
                rasterio.open(rows) as one,
                rasterio.open(tmp_path / "whole" / f"{target}.tif") as other,
            ):
                assert (one.crs, one.transform) == (other.crs, other.transform)
                assert (one.nodata, one.tags()) == (other.nodata, other.tags())
    assert parts(tmp_path / "rows") == []
    assert len(masks(tmp_path / "rows")) == len(kinds) + 1  # nothing else is left


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("wrong", [None, "size", "ids"])
def test_a_large_mask_is_compared_in_parts(models, tmp_path, monkeypatch, suffix, wrong):
    monkeypatch.setattr(label_maps, "PIXELS_AT_ONCE", 3000)
    monkeypatch.setattr(label_maps, "ROWS_OF_TILES", 7)
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    shape = (150, 199) if wrong == "size" else (150, 200)
    ids = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    ids[:9] = 255
    if wrong == "ids":
        ids[140, 7] = 77
    label = str(tmp_path / f"label.{suffix}")
    if suffix == "png":
        cv2.imwrite(label, ids)
    else:
        raster(label, ids[None], **TILES)
    found, _ = save(models / "argmax", path, tmp_path / "rows", label_path=label)
    monkeypatch.setattr(large, "LARGE", 1 << 40)
    whole, _ = save(models / "argmax", path, tmp_path / "whole", label_path=label)
    assert found.pixels == whole.pixels
    if wrong is None:
        with rasterio.open(tmp_path / "rows" / "a.tif") as mask:
            both = np.count_nonzero((mask.read(1) == ids) & (ids != 255))
        assert sum(found.pixels.areas.intersection) == both
        assert found.pixels.areas.compared == 141 * 200
    else:
        why = {"size": "it is 199x150, but its image is 200x150", "ids": "ids that the model"}
        assert why[wrong] in found.pixels.label_error


def test_pictures_that_need_the_whole_label_map_are_made_in_memory(models, tmp_path, monkeypatch):
    monkeypatch.setattr(strips.StripMaker, "__call__", None, raising=True)
    path = raster(tmp_path / "a.tif", RGB, photometric="rgb", **UTM)
    result, _ = save(models / "argmax", path, tmp_path / "out", ("mask", "overlay"))
    assert result.error is None
    assert (tmp_path / "out" / "a.tif").exists()


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"photometric": "minisblack"}, "uint8"),
        ({"photometric": "rgb"}, "uint16"),
        ({"photometric": "ycbcr", "compress": "jpeg"}, "uint8"),
    ],
)
def test_pictures_that_opencv_decodes_otherwise_are_read_whole(tmp_path, options, dtype):
    path = raster(tmp_path / "a.tif", RGB.astype(dtype), **options)
    assert large.large_raster(path, Reading()) is None
    assert large.large_raster(path, Reading(bands=(1, 2, 3))) is not None


def test_a_model_with_a_class_255_has_no_nodata(odd, tmp_path):
    bands = {"bands": (1, 2, 3)}
    path = raster(tmp_path / "a.tif", values(3, dtype="int16"), nodata=-9999, **UTM)
    result, _ = save(odd / "classes_256", path, tmp_path / "out", **bands)
    assert result.error is None, result.error
    with rasterio.open(tmp_path / "out" / "a.tif") as mask:
        assert mask.nodata is None
    raster(path, with_nodata(values(3, dtype="int16"), -9999), nodata=-9999, **UTM)
    result, _ = save(odd / "classes_256", path, tmp_path / "out", **bands)
    assert "255 is also a class of this model" in str(result.error)


@pytest.mark.parametrize("without_data", [slice(0, 48), slice(96, 150)])
def test_class_255_and_no_data_in_different_rows_are_not_mixed(odd, tmp_path, without_data):
    """This model gives each pixel the label 255, and declares no number of classes."""
    mask = np.ones((150, 200), bool)
    mask[without_data] = False
    path = raster(tmp_path / "a.tif", values(3, 150, 200), mask=mask, **UTM)
    how = {"bands": (1, 2, 3), "stride": (64, 48)}
    result, _ = save(odd / "ids_undeclared", path, tmp_path / "out", **how)
    assert "255 is also a class of this model" in str(result.error)
    assert not (tmp_path / "out" / "a.tif").exists()
    again, _ = save(odd / "ids_undeclared", path, tmp_path / "out", resume=True, **how)
    assert "255 is also a class of this model" in str(again.error)


def test_a_bad_large_raster_fails_alone(odd, tmp_path):
    path = raster(tmp_path / "a.tif", values(3), **UTM)
    result, _ = save(odd / "channels_5", path, tmp_path / "out")
    assert "the TIFF has 3 bands, but the model takes 5 channels" in str(result.error)
