"""Makes a raster of five bands and a model for it, to try the program on satellite images.

`python examples/five_bands.py FOLDER` writes:

- scene.tif: reflectances times 10,000, uint16, of blue, green, red, near and short-wave infrared,
  in a UTM zone, without data beyond the edges of the satellite's path;
- labels.png: the class of each pixel of this drawn landscape;
- model/: an export with deploy.yaml. Its network is a single convolution of 1x1 pixel: the score of
  a class is higher the nearer a pixel is to the class's mean reflectances.

It needs requirements/geo.txt, and Paddle's full import for the export.
"""

import argparse
import os
import warnings
from pathlib import Path

os.environ["FLAGS_enable_pir_api"] = "0"  # for a pdmodel, which TensorRT and OpenVINO can run too

import numpy as np
import rasterio
import yaml
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

SIZE = 512  # pixels, of 10 m
# Mean reflectances of blue, green, red, near and short-wave infrared
CLASSES = {
    "water": (0.06, 0.05, 0.04, 0.02, 0.01),
    "forest": (0.03, 0.05, 0.04, 0.28, 0.13),
    "crops": (0.04, 0.09, 0.06, 0.45, 0.20),
    "soil": (0.10, 0.14, 0.19, 0.27, 0.34),
    "town": (0.17, 0.18, 0.20, 0.22, 0.24),
}
WATER, FOREST, CROPS, SOIL, TOWN = range(5)
NOISE = 0.02  # standard deviation of the reflectances
SCALE = 10_000  # reflectance 1 in the file
NO_DATA, UNKNOWN = 0, 255
COLOURS = ColorInterp.blue, ColorInterp.green, ColorInterp.red  # of the first bands


def landscape(random: np.random.Generator) -> np.ndarray:
    """Returns the class of each pixel, uint8 [SIZE, SIZE]."""
    y, x = np.mgrid[:SIZE, :SIZE]
    # Fields: rectangles that are turned by 20 degrees, each with crops or bare soil
    along, across = x + 0.36 * y, y - 0.36 * x
    fields = random.integers(CROPS, TOWN, (40, 40))
    labels = fields[(along // 48).astype(int) % 40, (across // 34).astype(int) % 40]
    hills = np.sin(x / 61) + np.cos(y / 47 + x / 130) + np.sin((x + y) / 83)
    labels[hills > 1.1] = FOREST
    parks = random.random((40, 40))[(y // 24) % 40, (x // 30) % 40] < 0.15
    in_town = np.hypot(x - 370, y - 150) < 80 + 12 * np.sin(np.arctan2(y - 150, x - 370) * 5)
    labels[in_town] = np.where(parks, CROPS, TOWN)[in_town]
    middle = 250 + 70 * np.sin(y / 90) + 25 * np.sin(y / 31)
    labels[np.abs(x - middle) < 9 + y / 60] = WATER
    labels[np.hypot((x - 90) / 1.6, y - 400) < 34] = WATER
    return labels.astype(np.uint8)


def reflectances(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns uint16 [5, SIZE, SIZE], NO_DATA beyond the edges of the satellite's path."""
    means = np.array(list(CLASSES.values()))
    bands = means[labels] + random.normal(0, NOISE, (*labels.shape, means.shape[1]))
    # A value of 0 would mean that there is no data.
    numbers = (bands * SCALE).clip(1, None).round().astype(np.uint16)
    numbers[beyond_the_path()] = NO_DATA
    return np.moveaxis(numbers, 2, 0)


def beyond_the_path() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return (x + 0.2 * y < 50) | (x + 0.2 * y > 570)


def export(folder: Path) -> None:
    """Writes a model whose scores are those of the nearest mean, as PaddleSeg's export would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import paddle

    means = np.array(list(CLASSES.values()))
    network = paddle.nn.Conv2D(means.shape[1], len(means), 1)
    # |x - m|^2 is smallest where m.x - |m|^2 / 2 is largest. `Normalize` makes 2 x - 1 of x.
    network.weight.set_value((means / 2)[..., None, None].astype("float32"))
    network.bias.set_value((means.sum(1) / 2 - (means**2).sum(1) / 2).astype("float32"))
    network.eval()
    shape = [None, means.shape[1], None, None]
    specification = paddle.static.InputSpec(shape, "float32", "x")
    static = paddle.jit.to_static(network, input_spec=[specification])
    paddle.jit.save(static, str(folder / "model"))
    deploy = {
        "model": "model.pdmodel",
        "params": "model.pdiparams",
        "transforms": [{"type": "Normalize"}],
        "input_shape": [-1, means.shape[1], -1, -1],
        "output_op": "none",
        "labels": list(CLASSES),
    }
    (folder / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": deploy}), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a raster of five bands and its model.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    (folder / "model").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    labels = landscape(random)
    bands = reflectances(labels, random)
    options = {"count": len(bands), "width": SIZE, "height": SIZE, "dtype": "uint16"}
    grid = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    path = folder / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", tiled=True, compress="deflate", nodata=NO_DATA, **options, **grid
    ) as file:
        file.write(bands)
        file.colorinterp = [*COLOURS, ColorInterp.undefined, ColorInterp.undefined]
    labels[beyond_the_path()] = UNKNOWN
    Image.fromarray(labels).save(folder / "labels.png")
    export(folder / "model")


if __name__ == "__main__":
    main()
