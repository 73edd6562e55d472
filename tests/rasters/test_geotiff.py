"""A mask and a label map of a georeferenced TIFF have the same grid, and GDAL reads them."""

import io
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import rasterio
from conftest import ROOT, scene
from made import GRIDS, UTM, raster, values
from PIL import Image

from paddleseg_infer.errors import ImageError
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


@pytest.fixture(scope="module")
def run_of(odd, models, tmp_path_factory):
    """A function that segments rasters, and returns the folders of the inputs and the masks."""

    def run(named, model="channels_5", *more):
        folder = tmp_path_factory.mktemp("rasters")
        (folder / "in").mkdir()
        for name, (bands, options) in named.items():
            raster(folder / "in" / f"{name}.tif", bands, **options)
        of = (models if model == "argmax" else odd) / model / "deploy.yaml"
        arguments = ["--config", of, "--image_path", folder / "in", "--save_dir", folder / "out"]
        arguments += ["--device", "cpu", "--save", "mask", "label", *more]
        subprocess.run([sys.executable, ROOT / "infer.py", *arguments], check=True)
        return folder / "in", folder / "out"

    return run


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


# ---- pixels without data -----------------------------------------------------------------------

HALF = np.zeros((48, 64), bool)
HALF[:, 20:] = True


def with_nodata(bands, value):
    bands = bands.copy()
    bands[:, ~HALF] = value
    return bands


MASKED = {
    "value": (with_nodata(values(5, dtype="int16"), -9999), {"nodata": -9999}),
    "nan": (with_nodata(KINDS["floats"], np.nan), {"nodata": float("nan")}),
    "huge": (with_nodata(KINDS["floats"], -3.4e38), {"nodata": -3.4e38}),
    "mask": (KINDS["five bands"], {"mask": HALF}),
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
    rgba = np.concatenate([KINDS["picture"], 255 * HALF[None].astype(np.uint8)])
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
    bands = with_nodata(KINDS["floats"], np.nan)
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


def test_a_tiff_without_a_grid_gets_a_png(run_of):
    _, out = run_of({"a": (KINDS["five bands"], {}), "b": (MASKED["value"][0], {"nodata": -9999})})
    assert (out / "a.png").exists()
    labels = np.array(Image.open(io.BytesIO((out / "b.png").read_bytes())))
    assert (labels[~HALF] == 255).all()


def test_masks_of_the_networks_size_are_pngs(run_of):
    _, out = run_of({"a": (KINDS["five bands"], UTM)}, "channels_5", "--network_size")
    assert (out / "a.png").exists()
    assert not (out / "a.tif").exists()


# ---- found by trying ---------------------------------------------------------------------------


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
    folder, _ = run_of({"a": (KINDS["five bands"], UTM)})
    flags = {f"INTERNAL_MASK_FLAGS_{number}": "0" for number in range(1, 6)}
    masks = np.repeat(255 * HALF[None].astype(np.uint8), 5, 0)
    raster(tmp_path / "m.tif", masks, tags=flags)
    shutil.move(tmp_path / "m.tif", folder / "a.tif.msk")
    _, out = run_of({}, "channels_5", "--image_path", folder)
    with rasterio.open(out / "a.tif") as found:
        assert np.array_equal(found.read_masks(1) > 0, HALF)


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
