"""A mask and a label map of a georeferenced TIFF have the same grid, and GDAL reads them."""

import io
import json
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from conftest import scene
from made import GRIDS, HALF, UTM, raster, values, with_nodata
from PIL import Image

from paddleseg_infer.pictures.geotiff import encode_geotiff
from paddleseg_infer.pictures.palettes import PADDLESEG
from paddleseg_infer.place import Place
from paddleseg_infer.segmenter import Segmenter

KINDS = {
    "picture": np.moveaxis(scene(48, 64), 2, 0),
    "five bands": values(5),
    "floats": values(5, dtype="float32"),
}
needs_gdal = pytest.mark.skipif(not shutil.which("gdalinfo"), reason="GDAL's tools are missing")


@pytest.fixture(scope="module", params=["picture", "five bands"])
def folders(request, run_of):
    """The folders of inputs with every grid, and of their masks."""
    bands = KINDS[request.param]
    more = {"photometric": "rgb"} if request.param == "picture" else {}
    named = {name: (bands, {**grid, **more}) for name, grid in GRIDS.items()}
    point = {**more, "tags": {"AREA_OR_POINT": "Point"}}
    named["point"] = bands, {**UTM, **point}
    named["control points of points"] = bands, {**GRIDS["control points"], **point}
    return run_of(named, "argmax" if request.param == "picture" else "channels_5")


EVERY_GRID = [*GRIDS, "point", "control points of points"]


@pytest.mark.parametrize("name", EVERY_GRID)
@pytest.mark.parametrize("kind", ["", "label/"])
def test_a_mask_has_the_images_grid(folders, name, kind):
    with (
        rasterio.open(folders[0] / f"{name}.tif") as image,
        rasterio.open(folders[1] / f"{kind}{name}.tif") as mask,
    ):
        assert mask.shape == image.shape
        assert mask.crs == image.crs
        assert mask.transform.almost_equals(image.transform, 1e-9)
        assert (mask.rpcs and mask.rpcs.to_gdal()) == (image.rpcs and image.rpcs.to_gdal())
        assert [vars(point) for point in mask.gcps[0]] == [vars(p) for p in image.gcps[0]]
        assert mask.gcps[1] == image.gcps[1]
        if "control" not in name:  # GDAL moves control points if this tag says Point
            assert mask.tags().get("AREA_OR_POINT") == image.tags().get("AREA_OR_POINT")


def info(path):
    told = json.loads(subprocess.check_output(["gdalinfo", "-json", path]))
    kept = ("size", "coordinateSystem", "geoTransform", "gcps", "cornerCoordinates", "wgs84Extent")
    metadata = told["metadata"]
    point = {} if told.get("gcps") else {"point": metadata.get("", {}).get("AREA_OR_POINT")}
    return {**{name: told.get(name) for name in kept}, "RPC": metadata.get("RPC"), **point}


@needs_gdal
@pytest.mark.parametrize("name", EVERY_GRID)
def test_gdalinfo_prints_the_same_grid_for_image_and_mask(folders, name):
    assert info(folders[0] / f"{name}.tif") == info(folders[1] / f"{name}.tif")


def test_a_mask_has_colours_names_and_tiles_and_a_label_map_is_grey(run_of):
    _, out = run_of({"a": (KINDS["five bands"], UTM)})
    with rasterio.open(out / "a.tif") as mask, rasterio.open(out / "label" / "a.tif") as label:
        assert np.array_equal(mask.read(), label.read())
        colours = mask.colormap(1)
        for class_id in (0, 1, 4, 255):
            expected = tuple(PADDLESEG[3 * class_id : 3 * class_id + 3])
            assert colours[class_id][:3] == expected
        assert (mask.compression.name, label.compression.name) == ("deflate", "deflate")
        assert mask.profile["tiled"] and label.profile["tiled"]
        assert mask.nodata is None
        assert label.colorinterp[0].name == "gray"


def test_the_classes_names_are_in_the_metadata():
    place = Place(crs=rasterio.CRS.from_epsg(32633), transform=UTM["transform"])
    data = encode_geotiff(np.zeros((20, 30), np.uint8), place, ("road", "a tree", "水"), PADDLESEG)
    with rasterio.MemoryFile(data) as memory, memory.open() as file:
        tags = file.tags()
        assert [tags[f"CLASS_{number}"] for number in range(3)] == ["road", "a tree", "水"]


@needs_gdal
def test_gdals_tools_read_the_masks(run_of, tmp_path):
    _, out = run_of({"a": (KINDS["five bands"], UTM)})
    subprocess.check_call(
        ["gdal_translate", "-q", "-of", "PNG", out / "label" / "a.tif", tmp_path / "a.png"]
    )
    with rasterio.open(out / "a.tif") as mask:
        assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), mask.read(1))
    if shutil.which("gdalcompare.py"):
        same = subprocess.run(["gdalcompare.py", out / "a.tif", out / "a.tif"])
        assert same.returncode == 0


def test_ids_above_255_have_16_bits():
    place = Place(crs=rasterio.CRS.from_epsg(32633), transform=UTM["transform"])
    labels = np.full((20, 30), 300, np.uint16)
    with rasterio.MemoryFile(encode_geotiff(labels, place)) as memory, memory.open() as file:
        assert np.array_equal(file.read(1), labels)


def test_a_tiff_without_a_grid_gets_a_png(run_of):
    _, out = run_of(
        {
            "a": (KINDS["five bands"], {}),
            "b": (with_nodata(values(5, dtype="int16"), -9999), {"nodata": -9999}),
        }
    )
    assert (out / "a.png").exists()
    labels = np.array(Image.open(io.BytesIO((out / "b.png").read_bytes())))
    assert (labels[~HALF] == 255).all()


def test_masks_of_the_networks_size_are_pngs(run_of):
    _, out = run_of({"a": (KINDS["five bands"], UTM)}, "channels_5", "--network_size")
    assert (out / "a.png").exists()
    assert not (out / "a.tif").exists()


def test_a_coordinate_system_that_a_geotiff_cannot_hold_is_logged(caplog):
    place = Place("a.tif", rasterio.CRS.from_string("+proj=eqearth"), UTM["transform"])
    encode_geotiff(np.zeros((20, 30), np.uint8), place)
    assert "a.tif: its coordinate system can't be kept in a GeoTIFF" in caplog.text
    caplog.clear()
    encode_geotiff(np.zeros((20, 30), np.uint8), Place("b.tif", rasterio.CRS.from_epsg(2056)))
    assert not caplog.text


def test_damaged_metadata_of_a_picture_costs_only_its_georeference(models, tmp_path, caplog):
    path = raster(tmp_path / "a.tif", KINDS["picture"], photometric="rgb", **UTM)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="RPC"><MDI key="LINE_OFF">1</MDI></Metadata></PAMDataset>'
    )
    labels = Segmenter(models / "argmax" / "deploy.yaml", device="cpu")(path)
    assert labels.shape == (48, 64)
    assert "its georeference can't be kept" in caplog.text
