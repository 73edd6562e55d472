"""Polygons: filled again they are the label map, and other programs read them."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import rasterio.features
from conftest import ROOT, scene, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from made import GRIDS, UTM, raster

from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.pictures.files import whole_geojson
from paddleseg_infer.pictures.polygons import encode_geojson, sieved
from paddleseg_infer.place import Place
from paddleseg_infer.segmenter import Segmenter

DEMO = ROOT / "demo"
PIXELS = rasterio.Affine.identity()


def filled(data, shape, transform=PIXELS, nothing=255):
    """Returns the label map that the polygons of a GeoJSON file give."""
    features = json.loads(data)["features"]
    shapes = [(each["geometry"], each["properties"]["class"]) for each in features]
    result = np.full(shape, nothing, np.uint16)
    if shapes:
        rasterio.features.rasterize(shapes, out=result, transform=transform)
    return result


def place_of(**grid):
    crs = rasterio.CRS.from_user_input(grid["crs"]) if "crs" in grid else None
    return Place(crs=crs, transform=grid.get("transform"))


@st.composite
def label_maps(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    dtype, most = draw(st.sampled_from([(np.uint8, 3), (np.uint8, 255), (np.uint16, 999)]))
    coarse = random.integers(0, most, (-(-height // 3), -(-width // 3)))
    scale = draw(st.sampled_from([1, 3]))
    labels = coarse.repeat(3, 0).repeat(3, 1)[:height, :width] if scale == 3 else None
    return (random.integers(0, most, (height, width)) if labels is None else labels).astype(dtype)


@settings(max_examples=100, deadline=None)
@given(label_maps(), st.sampled_from([None, "utm", "south-up", "geographic", "no crs"]))
def test_filled_again_the_polygons_are_the_label_map(labels, grid):
    place = place_of(**GRIDS[grid]) if grid else None
    data = encode_geojson(labels, place, (), to_wgs84=False)
    transform = GRIDS[grid]["transform"] if grid else PIXELS
    assert np.array_equal(filled(data, labels.shape, transform), labels)
    found = json.loads(data)
    assert found["size"] == [labels.shape[1], labels.shape[0]]
    pixels = {}
    for each in found["features"]:
        properties = each["properties"]
        pixels[properties["class"]] = pixels.get(properties["class"], 0) + properties["pixels"]
    ids, counts = np.unique(labels, return_counts=True)
    assert pixels == dict(zip(ids.tolist(), counts.tolist(), strict=True))


def test_pixels_without_data_are_in_no_polygon():
    labels = np.random.default_rng(0).integers(0, 3, (30, 40)).astype(np.uint8)
    valid = np.ones((30, 40), bool)
    valid[5:9, 3:30] = False
    place = Place(transform=UTM["transform"], valid=valid)
    found = filled(encode_geojson(labels, place, (), False), (30, 40), UTM["transform"], 77)
    assert np.array_equal(found, np.where(valid, labels, 77))


def test_a_feature_has_name_pixels_and_the_area_in_the_unit_of_a_projected_system():
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 1:4] = 1
    [hole] = [f for f in features(labels, place_of(**UTM), ("land", "lake")) if f["class"] == 1]
    assert hole == {"class": 1, "name": "lake", "pixels": 6, "area": 600.0}
    [land] = [f for f in features(labels, place_of(**UTM), ("land",)) if f["class"] == 0]
    assert land == {"class": 0, "name": "land", "pixels": 18, "area": 1800.0}
    [degrees] = features(labels[:1, :1], place_of(**GRIDS["geographic"]), ())
    assert degrees == {"class": 0, "name": "0", "pixels": 1}
    assert features(labels[:1, :1], None, ()) == [degrees]


def features(labels, place, names):
    found = json.loads(encode_geojson(labels, place, names, False))["features"]
    return [each["properties"] for each in found]


def area(ring):
    x, y = np.array(ring).T
    return (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2


@pytest.mark.parametrize("grid", ["utm", "south-up", "geographic", "rotated"])
def test_wgs84_follows_rfc_7946(grid):
    labels = np.zeros((20, 30), np.uint8)
    labels[5:9, 6:20] = 1
    place = place_of(**GRIDS[grid])
    found = json.loads(encode_geojson(labels, place, (), to_wgs84=True))
    assert "crs" not in found
    for each in found["features"]:
        border, *holes = each["geometry"]["coordinates"]
        assert border[0] == border[-1]
        assert area(border) > 0  # counter-clockwise
        assert all(area(hole) < 0 for hole in holes)
    own = json.loads(encode_geojson(labels, place, (), to_wgs84=False))
    assert own["crs"]["properties"]["name"].startswith("urn:ogc:def:crs:EPSG::")
    x, y = own["features"][0]["geometry"]["coordinates"][0][0]
    [longitude], [latitude] = rasterio.warp.transform(place.crs, "EPSG:4326", [x], [y])
    corners = np.array(found["features"][0]["geometry"]["coordinates"][0])
    assert np.abs(corners - [longitude, latitude]).max(axis=1).min() < 2e-9


@pytest.mark.parametrize("place", [None, Place(), place_of(**GRIDS["no crs"])])
def test_wgs84_needs_a_coordinate_system(place):
    with pytest.raises(ImageError, match="--wgs84 needs a coordinate system and a transform"):
        encode_geojson(np.zeros((3, 4), np.uint8), place, (), to_wgs84=True)


@pytest.mark.parametrize(
    ("crs", "transform", "message"),
    [
        (
            "EPSG:32601",
            (100, 0, 262_000, 0, -100, 5_000_000),
            "cross the 180th meridian or contain",
        ),
        ("EPSG:3413", (20_000, 0, -200_000, 0, -20_000, 200_000), "cross the 180th meridian or"),
        ("EPSG:4326", (0.1, 0, 179, 0, -0.1, 10), "cross the 180th meridian or contain a pole"),
        ("ESRI:104905", (0.1, 0, 10, 0, -0.1, 10), "its polygons can't be made"),  # Mars
        ("EPSG:32633", (10, 0, 5e9, 0, -10, 5e6), "can't be (made|converted to WGS 84)"),
    ],
)
def test_wgs84_refuses_what_it_would_get_wrong(crs, transform, message):
    place = place_of(crs=crs, transform=rasterio.Affine(*transform))
    with pytest.raises(ImageError, match=message):
        encode_geojson(np.zeros((20, 30), np.uint8), place, (), to_wgs84=True)


@settings(max_examples=60, deadline=None)
@given(label_maps(), st.integers(1, 30), st.booleans())
def test_min_area_is_gdals_sieve(labels, smallest, has_mask):
    valid = np.random.default_rng(1).random(labels.shape) < 0.9 if has_mask else None
    found = sieved(labels, smallest, Place(valid=valid))
    expected = rasterio.features.sieve(labels, min(smallest, labels.size), mask=valid)
    known = valid if has_mask else np.ones(labels.shape, bool)
    assert np.array_equal(found[known], expected[known])
    assert np.array_equal(found[~known], labels[~known])


# ---- runs --------------------------------------------------------------------------------------


def test_a_run_saves_polygons_and_resumes(infer, tmp_path):
    command = ("--config", DEMO / "model" / "deploy.yaml", "--image_path", DEMO / "images")
    command += ("--save", "label", "geojson", "--resume")
    assert "labels, polygons in output" in infer(*command).out
    for path in sorted((tmp_path / "output" / "geojson").iterdir()):
        with rasterio.open(tmp_path / "output" / "label" / f"{path.stem}.png") as file:
            labels = file.read(1)
        data = path.read_bytes()
        assert np.array_equal(filled(data, labels.shape), labels)
        assert b'"name":"road"' in data
        assert whole_geojson(str(path)) == labels.shape[::-1]
    assert "0 of 4 images done" in infer(*command).out
    path.write_bytes(data[:-1])
    assert "1 of 4 images done" in infer(*command).out
    assert path.read_bytes() == data


@pytest.mark.skipif(not shutil.which("ogrinfo"), reason="GDAL's tools are missing")
def test_ogrinfo_reads_the_polygons_and_their_coordinate_system(infer, models, tmp_path):
    path = raster(tmp_path / "a.tif", np.moveaxis(scene(48, 64), 2, 0), photometric="rgb", **UTM)
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", path)
    assert infer(*command, "--save", "geojson").code == 0
    written = tmp_path / "output" / "geojson" / "a.geojson"
    told = subprocess.check_output(["ogrinfo", "-al", "-so", written], text=True)
    count = len(json.loads(written.read_text())["features"])
    assert f"Feature Count: {count}" in told
    assert 'PROJCRS["WGS 84 / UTM zone 33N"' in told
    assert re.search(r"Extent: \(500000\.\d+, 4999520\.\d+\) - \(500640\.\d+, 5000000", told)


def test_windows_give_one_polygon_for_a_region_across_them(models, tmp_path, infer):
    """The model's labels don't depend on the windows, so neither do the regions."""
    image = write_image(tmp_path / "a.png", (60, 80))
    command = ("--config", models / "logits" / "deploy.yaml", "--image_path", image)
    command += ("--save", "label", "geojson", "--crop_size", "32", "32")
    assert infer(*command).code == 0
    data = (tmp_path / "output" / "geojson" / "a.geojson").read_bytes()
    with rasterio.open(tmp_path / "output" / "label" / "a.png") as file:
        labels = file.read(1)
    assert np.array_equal(filled(data, labels.shape), labels)
    traced = list(rasterio.features.shapes(labels))
    assert len(json.loads(data)["features"]) == len(traced)


def test_min_area_changes_every_kind_and_the_python_interface(infer, tmp_path):
    command = ("--config", DEMO / "model" / "deploy.yaml", "--image_path", DEMO / "images")
    command += ("--save", "mask", "label", "geojson", "--min_area", "60")
    assert infer(*command).code == 0
    plain = Segmenter(DEMO / "model" / "deploy.yaml", device="cpu", cpu_threads=2)
    smooth = Segmenter(DEMO / "model" / "deploy.yaml", device="cpu", cpu_threads=2, min_area=60)
    image = DEMO / "images" / "avenue.jpg"
    expected = rasterio.features.sieve(plain(image), 60)
    assert not np.array_equal(expected, plain(image))
    assert np.array_equal(smooth(image), expected)
    for path in ("avenue.png", "label/avenue.png"):
        with rasterio.open(tmp_path / "output" / path) as file:
            assert np.array_equal(file.read(1), expected)
    data = (tmp_path / "output" / "geojson" / "avenue.geojson").read_bytes()
    assert np.array_equal(filled(data, expected.shape), expected)


def test_without_rasterio_the_run_does_not_start(infer, tmp_path):
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "rasterio.py").write_text("raise ImportError")
    command = ("--config", DEMO / "model" / "deploy.yaml", "--image_path", DEMO / "images")
    for flags in (("--save", "geojson"), ("--min_area", "5")):
        run = infer(*command, *flags, PYTHONPATH=str(tmp_path / "no"))
        assert run.code == 2
        assert "needs rasterio: run pip install -r requirements/geo.txt" in run.err
        assert not (tmp_path / "output").exists()


def test_wgs84_without_polygons_has_no_effect(infer, models, tmp_path):
    image = write_image(tmp_path / "a.png", (40, 40))
    command = ("--config", models / "argmax" / "deploy.yaml", "--image_path", image)
    assert "--wgs84 has no effect without --save geojson" in infer(*command, "--wgs84").err


def test_python_refuses_an_area_below_one(models):
    with pytest.raises(ConfigError, match="min_area must be a whole number above 0"):
        Segmenter(models / "argmax" / "deploy.yaml", device="cpu", min_area=0)
