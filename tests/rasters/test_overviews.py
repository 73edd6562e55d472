"""--overviews: Cloud Optimized GeoTIFFs with the labels, the grid and the tags of plain ones."""

import shutil

import numpy as np
import pytest
import rasterio
from conftest import masks, scene
from made import GRIDS, UTM, raster, values, with_nodata

from paddleseg_infer.outcomes import Job
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.settings import SavingOptions
from paddleseg_infer.sources import large

HEIGHT, WIDTH = 700, 900  # more than one tile of a Cloud Optimized GeoTIFF
PICTURE = np.moveaxis(scene(HEIGHT, WIDTH), 2, 0)


def save(model, path, folder, overviews):
    segmenter = Segmenter(model / "deploy.yaml", device="cpu", crop_size=(WIDTH, 256))
    saving = SavingOptions(str(folder), ("mask", "label"), overviews=overviews)
    [result] = segmenter.save([Job(str(path), "a")], saving)
    assert result.error is None, result.error
    return [folder / "a.tif", folder / "label" / "a.tif"]


@pytest.fixture(params=["in memory", "row by row"])
def way(request, monkeypatch):
    monkeypatch.setattr(large, "LARGE", 0 if request.param == "row by row" else 1 << 40)


@pytest.mark.parametrize("name", [*GRIDS, "point"])
def test_only_the_layout_differs_from_a_plain_geotiff(models, tmp_path, way, name):
    tags = {"AREA_OR_POINT": "Point"} if name == "point" else {}
    path = raster(
        tmp_path / "a.tif", PICTURE, None, tags, photometric="rgb", **GRIDS.get(name, UTM)
    )
    plain = save(models / "argmax", path, tmp_path / "plain", False)
    cloud = save(models / "argmax", path, tmp_path / "cloud", True)
    assert masks(tmp_path / "plain") == masks(tmp_path / "cloud")
    for one, other in zip(plain, cloud, strict=True):
        with rasterio.open(one) as a, rasterio.open(other) as b:
            assert np.array_equal(a.read(), b.read())
            assert (a.crs, a.transform, a.nodata) == (b.crs, b.transform, b.nodata)
            assert (a.tags(), a.gcps[1]) == (b.tags(), b.gcps[1])
            assert [vars(each) for each in a.gcps[0]] == [vars(each) for each in b.gcps[0]]
            assert (a.rpcs and a.rpcs.to_gdal()) == (b.rpcs and b.rpcs.to_gdal())
            assert a.colorinterp == b.colorinterp
            if a.colorinterp[0].name == "palette":
                assert a.colormap(1) == b.colormap(1)
            assert (a.overviews(1), b.overviews(1)) == ([], [2])
            assert b.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_a_pixel_of_an_overview_has_the_most_frequent_id(odd, tmp_path, way):
    bands = np.full((5, HEIGHT, WIDTH), -9999, np.int16)
    bands[:, :, 100:] = values(5, HEIGHT, WIDTH, "int16")[:, :, 100:]
    path = raster(tmp_path / "a.tif", bands, nodata=-9999, **UTM)
    for mask in save(odd / "channels_5", path, tmp_path / "out", True):
        with rasterio.open(mask) as file:
            labels = file.read(1)
        with rasterio.open(mask, overview_level=0) as file:
            small = file.read(1)
        assert small.shape == (HEIGHT // 2, WIDTH // 2)
        blocks = (
            labels.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).swapaxes(1, 2).reshape(*small.shape, 4)
        )
        # Pixels without data count only where there are no others
        counts = np.stack([(blocks == each).sum(-1) for each in range(255)])
        chosen = np.take_along_axis(counts, np.minimum(small, 254)[None], 0)[0]
        assert np.array_equal(small == 255, counts.max(0) == 0)
        assert np.array_equal(chosen, counts.max(0))
        assert len(np.unique(small)) > 2


def test_resume_skips_whole_ones_and_makes_the_others_again(infer, models, tmp_path):
    path = raster(tmp_path / "a.tif", PICTURE, photometric="rgb", **UTM)
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", path)
    command += ("--overviews", "--resume")
    assert infer(*command).code == 0
    assert "0 of 1 images done" in infer(*command).out
    mask = tmp_path / "output" / "a.tif"
    whole = mask.read_bytes()
    # After its last tile, GDAL repeats four bytes of it, which no reader of pixels needs.
    for length in (len(whole) - 5, len(whole) // 2, 600, 0):
        mask.write_bytes(whole[:length])
        assert "1 of 1 images done" in infer(*command).out
        assert mask.read_bytes() == whole


def test_it_says_when_the_flag_can_do_nothing(infer, models, tmp_path):
    path = raster(tmp_path / "a.tif", with_nodata(values(3, dtype="uint8"), 0), **UTM)
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", path, "--overviews")
    found = infer(*command, "--save", "geojson")
    assert "--overviews has no effect without --save mask or label" in found.err
    shutil.rmtree(tmp_path / "output")
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "rasterio.py").write_text("raise ImportError")
    found = infer(*command, PYTHONPATH=str(tmp_path / "no"))
    assert found.code == 2
    assert "--overviews needs rasterio: run pip install -r requirements/geo.txt" in found.err
    assert not (tmp_path / "output").exists()
