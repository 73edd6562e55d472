"""What is read of which file, for models of any number of channels."""

import os

import cv2
import numpy as np
import oracle
import pytest
import rasterio
from conftest import scene
from made import UTM, raster, read, values
from PIL import Image
from rasterio.enums import ColorInterp

from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.segmenter import Segmenter
from paddleseg_infer.sources.reading import Reading
from paddleseg_infer.sources.source import source_of

CHANNELS = (1, 2, 4, 5, 13)


def expected_labels(odd, channels, tensor):
    """Returns the labels that Paddle's public predictor gives for a tensor [C, H, W]."""
    model = oracle.Oracle(odd / f"channels_{channels}" / "deploy.yaml")
    handle = model.predictor.get_input_handle(model.predictor.get_input_names()[0])
    handle.reshape((1, *tensor.shape))
    handle.copy_from_cpu(np.ascontiguousarray(tensor[None]))
    model.predictor.run()
    name = model.predictor.get_output_names()[0]
    return model.predictor.get_output_handle(name).copy_to_cpu()[0].argmax(0)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_tiff_npy_and_array_give_the_labels_of_the_formula(odd, tmp_path, channels, dtype):
    bands = values(channels, dtype=dtype)
    tensor = bands.astype(np.float32) / 255.0  # Normalize with mean and std 0.5
    tensor = ((tensor - 0.5) / 0.5).astype(np.float32)
    expected = expected_labels(odd, channels, tensor)
    array = np.moveaxis(bands, 0, 2)
    tiff = raster(tmp_path / "a.tif", bands, **UTM)
    np.save(tmp_path / "a.npy", array)
    segmenter = Segmenter(odd / f"channels_{channels}" / "deploy.yaml", device="cpu")
    for image in (tiff, tmp_path / "a.npy", array, np.asfortranarray(array)):
        assert np.array_equal(segmenter(image), expected)
    windows = Segmenter(
        odd / f"channels_{channels}" / "deploy.yaml", device="cpu", crop_size=(32, 24)
    )
    assert np.array_equal(windows(tiff), windows(array))


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, "uint16"),
        ({"tiled": True, "blockxsize": 16, "blockysize": 16}, "int16"),
        ({"interleave": "pixel"}, "uint16"),
        ({"interleave": "band", "compress": "lzw"}, "float32"),
        ({"compress": "deflate", "predictor": 2}, "uint16"),
        ({"BIGTIFF": "YES"}, "uint8"),
        ({}, "float64"),
        ({}, "int32"),
        ({"nodata": -9999}, "int16"),
    ],
)
def test_bands_of_every_layout_are_read_as_they_are(tmp_path, options, dtype):
    bands = values(5, dtype=dtype)
    path = raster(tmp_path / "a.tif", bands, **options)
    assert np.array_equal(read(path, 5), np.moveaxis(bands, 0, 2).astype(dtype))
    assert np.array_equal(read(path, 2), np.moveaxis(bands[:2], 0, 2))
    chosen = read(path, 4, bands=(5, 1, 3, 3))
    assert np.array_equal(chosen, np.moveaxis(bands[[4, 0, 2, 2]], 0, 2))


def test_jpeg_in_a_tiff_is_decoded(tmp_path):
    bands = np.moveaxis(scene(48, 64), 2, 0)
    path = raster(tmp_path / "a.tif", bands, compress="jpeg", photometric="ycbcr")
    with rasterio.open(path) as file:
        decoded = np.moveaxis(file.read(), 0, 2)
    assert np.array_equal(read(path, 3, bands=(1, 2, 3))[..., ::-1], decoded)
    assert np.array_equal(read(path, 1)[..., 0], read(path, 2)[..., 0])


def test_three_named_bands_are_the_tensors_channels_in_their_order(models, tmp_path):
    """A tensor of three channels is RGB, and a picture in this program BGR."""
    bands = values(4, dtype="uint8")
    path = raster(tmp_path / "a.tif", bands)
    model = models / "argmax" / "deploy.yaml"
    by_bands = Segmenter(model, device="cpu", bands=(4, 3, 2))(path)
    assert np.array_equal(by_bands, Segmenter(model, device="cpu")(np.dstack(bands[1:])))


def test_a_model_of_three_channels_reads_a_tiff_as_a_picture(tmp_path):
    """As OpenCV does: 16 bits become 8."""
    bands = values(3) * 16
    path = raster(tmp_path / "a.tif", bands, photometric="rgb", **UTM)
    assert np.array_equal(read(path, 3), cv2.imread(path, cv2.IMREAD_COLOR))
    assert read(path, 3).dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_model_of_one_channel_reads_pictures_in_grey(tmp_path, suffix):
    path = str(tmp_path / f"a{suffix}")
    cv2.imwrite(path, scene(40, 50))
    grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(read(path, 1)[..., 0], grey)
    assert np.array_equal(read(grey, 1)[..., 0], grey)
    assert np.array_equal(read(Image.fromarray(grey), 1)[..., 0], grey)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_model_of_four_channels_reads_rgba_pictures(tmp_path, dtype):
    image = np.moveaxis(values(4, dtype=dtype), 0, 2)
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, image)
    assert np.array_equal(read(path, 4), image)
    if dtype == "uint8":
        assert np.array_equal(read(Image.open(path), 4), image)


def test_pixel_scale_multiplies_the_values_first(odd, tmp_path):
    bands = values(5)
    array = np.moveaxis(bands, 0, 2)
    scaled = array.astype(np.float32) * np.float32(255 / 4095)
    for image in (raster(tmp_path / "a.tif", bands), array):
        assert np.array_equal(read(image, 5, scale=255 / 4095), scaled)
    model = odd / "channels_5" / "deploy.yaml"
    labels = Segmenter(model, device="cpu", pixel_scale=255 / 4095)(array)
    assert np.array_equal(labels, Segmenter(model, device="cpu")(scaled))


@pytest.mark.parametrize(
    ("channels", "options", "message"),
    [
        (5, {"bands": (1, 2)}, "--bands names 2 bands, but the model takes 5 channels"),
        (5, {"bands": (0, 1, 2, 3, 4)}, "bands must be a list of whole numbers from 1"),
        (5, {"bands": 5}, "bands must be a list of whole numbers from 1"),
        *(
            (5, {"pixel_scale": wrong}, "pixel_scale must be a number from 1e-12 to 1e.12, not ")
            for wrong in (0, "2", True, 1e-46, 10**400, float("nan"))
        ),
        (513, {}, "the model takes 513 channels, but at most 512 are supported"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(odd, channels, options, message):
    with pytest.raises(ConfigError, match=message):
        Segmenter(odd / f"channels_{channels}" / "deploy.yaml", device="cpu", **options)


def test_deploy_yaml_and_graph_must_agree(odd, model_copy):
    folder = model_copy("argmax", input_shape=[-1, 5, -1, -1])
    with pytest.raises(ConfigError, match="needs images of 3 channels, but `input_shape` in .* 5"):
        Segmenter(folder / "deploy.yaml", device="cpu").load()


def test_normalize_must_have_a_value_for_each_channel(model_copy):
    folder = model_copy("argmax", transforms=[{"type": "Normalize", "mean": [0.5, 0.5]}])
    with pytest.raises(ConfigError, match="mean of transform Normalize has 2 values, but the"):
        Segmenter(folder / "deploy.yaml", device="cpu")


def test_a_path_that_is_not_utf_8_gets_a_sentence(tmp_path):
    name = os.fsdecode(b"\xb2\xa8.tif")
    path = os.path.join(tmp_path, name)
    os.rename(raster(tmp_path / "a.tif", values(5), **UTM), path)
    with pytest.raises(ImageError, match="its path isn't UTF-8, and GDAL opens only such paths"):
        read(path, 5)
    # For a picture OpenCV reads it, and only the georeference is lost.
    os.rename(raster(tmp_path / "a.tif", values(3, dtype="uint8"), photometric="rgb", **UTM), path)
    data = source_of(path).read()
    assert (data.pixels.shape, data.place) == ((48, 64, 3), None)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">f4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_of_every_order_of_bytes_and_axes_are_read(tmp_path, dtype, order):
    array = np.asarray(np.moveaxis(values(5, dtype="uint8"), 0, 2), dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    found = read(str(tmp_path / "a.npy"), 5)
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")


def test_a_masked_array_is_refused():
    array = np.ma.masked_array(np.zeros((8, 8, 5), np.uint16), True)
    with pytest.raises(ImageError, match="it is a masked array"):
        read(array, 5)


def test_numpys_integers_are_band_numbers(odd, tmp_path):
    path = raster(tmp_path / "a.tif", values(6))
    model = odd / "channels_5" / "deploy.yaml"
    one, other = (
        Segmenter(model, device="cpu", bands=bands)(path)
        for bands in (np.arange(2, 7), range(2, 7))
    )
    assert np.array_equal(one, other)


def view(image, channels=3, **how):
    return source_of(image, Reading(channels, **how)).read().view()


def test_the_view_of_a_picture_is_the_picture_also_with_a_scale(tmp_path):
    image = scene(40, 50)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    for how in ({}, {"scale": 3.0}):
        assert np.array_equal(view(str(tmp_path / "a.png"), **how), image)
    assert np.array_equal(view(image[..., :1], 1), image[..., [0, 0, 0]])
    rgba = np.dstack([image, image[..., 0]])
    assert np.array_equal(view(rgba, 4), image)


@pytest.mark.parametrize("bands", [None, (1, 2, 3), (3, 2, 1)])
def test_the_view_of_bands_has_the_colours_that_the_file_names(tmp_path, bands):
    """The bands are blue, green, red and two others, with 16 bits."""
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    path = raster(tmp_path / "a.tif", values(5))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*colours, ColorInterp.undefined, ColorInterp.undefined]
    seen = view(path, 3 if bands else 5, bands=bands).astype(int)
    assert seen.min() == 0 and seen.max() == 255
    for channel, band in enumerate(values(5)[:3]):
        assert np.corrcoef(seen[..., channel].ravel(), band.ravel())[0, 1] > 0.95
