"""The pictures of a segmentation agree in every pixel."""

import io

import cv2
import numpy as np
import pytest
from conftest import scene
from PIL import Image

from paddleseg_infer import settings
from paddleseg_infer.errors import ConfigError, ImageError
from paddleseg_infer.pictures import overlay as pictures
from paddleseg_infer.pictures.kinds import KINDS, Pictures, Segmentation, encode_mask
from paddleseg_infer.pictures.overlay import shares
from paddleseg_infer.pictures.palettes import PADDLESEG, PALETTES

SIZE = (90, 120)
COLOURS = np.frombuffer(PADDLESEG, np.uint8).reshape(256, 3)


def opened(data):
    return np.array(Image.open(io.BytesIO(data)))


def blocks(seed=0, classes=5, dtype=np.uint8):
    """Returns labels of SIZE in squares of ten by ten pixels."""
    small = np.random.default_rng(seed).integers(0, classes, (9, 12)).astype(dtype)
    return small.repeat(10, axis=0).repeat(10, axis=1)


def decoded(segmentation, **options):
    """Returns the pictures of a segmentation as arrays, by kind."""
    kinds = tuple(kind for kind in KINDS if kind not in ("probability", "geojson"))
    options = {"kinds": kinds, **options}
    return {kind: opened(data) for kind, data in Pictures(**options).encoded(segmentation)}


def test_the_flag_offers_all_kinds_of_pictures():
    assert tuple(KINDS) == settings.KINDS


def test_a_mask_holds_the_class_ids_and_the_palette():
    labels = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    mask = Image.open(io.BytesIO(encode_mask(labels, PALETTES["voc"])))
    assert mask.mode == "P"
    assert np.array_equal(np.array(mask), labels)
    assert bytes(mask.getpalette()) == PALETTES["voc"]


def test_mask_label_score_and_overlay_agree_in_every_pixel():
    labels = blocks()
    score = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)
    image = scene(*SIZE)
    found = decoded(Segmentation(labels, score, image))
    assert np.array_equal(found["mask"], labels)
    assert np.array_equal(found["label"], labels)
    assert np.array_equal(found["score"], score)
    overlay = found["overlay"][: SIZE[0], : SIZE[1]].astype(int)
    blended = (image[..., ::-1].astype(int) + COLOURS[labels]) / 2
    is_plain = np.abs(overlay - blended).max(axis=2) <= 0.5
    one_class = cv2.erode(labels, np.ones((5, 5))) == cv2.dilate(labels, np.ones((5, 5)))
    assert is_plain[one_class].all()
    is_line = np.isin(overlay, (0, 255)).all(axis=2)
    assert (is_plain | is_line).all()


def test_boundaries_between_classes_are_white_with_black_edges():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    image = np.full((40, 40, 3), 100, np.uint8)
    pictures.draw_boundaries(image, labels)
    assert image[5, 17:24, 0].tolist() == [100, 100, 0, 255, 0, 100, 100]
    turned = np.full((40, 40, 3), 100, np.uint8)
    pictures.draw_boundaries(turned, np.ascontiguousarray(labels.T))
    assert np.array_equal(turned, image.transpose(1, 0, 2))
    pictures.draw_boundaries(image, np.zeros_like(labels))
    assert (image[:, :19] == 100).all()


def test_boundaries_are_wider_in_larger_images():
    labels = np.zeros((10, 4800), np.uint8)
    labels[:, 2400:] = 1
    image = np.full((*labels.shape, 3), 100, np.uint8)
    pictures.draw_boundaries(image, labels)
    assert ((image[5] == 255).all(axis=1).sum(), (image[5] == 0).all(axis=1).sum()) == (4, 8)


def test_labels_of_more_than_256_classes_have_16_bits():
    labels = blocks(classes=300, dtype=np.uint16)
    found = decoded(Segmentation(labels, None, scene(*SIZE)), kinds=("label", "overlay"))
    assert np.array_equal(found["label"], labels)
    assert Image.open(io.BytesIO(KINDS["label"](Segmentation(labels), Pictures()))).mode == "I;16"
    with pytest.raises(
        ImageError, match="a mask has 8 bits, which hold 0 to 255: use --save label, with 16"
    ):
        decoded(Segmentation(labels), kinds=("mask",))


@pytest.mark.parametrize("seed", range(20))
def test_shares_equal_those_of_numpy_and_add_up_to_one(seed):
    random = np.random.default_rng(seed)
    labels = random.choice(7, (13, 29), p=random.dirichlet(np.ones(7))).astype(np.uint8)
    found = shares(labels)
    assert sum(share for _, share in found) == 1000
    classes, counts = np.unique(labels, return_counts=True)
    assert sorted(class_id for class_id, _ in found) == classes.tolist()
    for class_id, share in found:
        assert abs(share - 1000 * counts[classes == class_id][0] / labels.size) < 1
    assert [share for _, share in found] == sorted((s for _, s in found), reverse=True)


def box_colours(legend_bgr):
    """Returns the colours (RGB) of the legend's boxes, from left to right in their first row."""
    colours = []
    row = legend_bgr[len(legend_bgr) // 2]
    for pixel in row[:, ::-1].tolist():
        is_colour = pixel in COLOURS.tolist() and len(set(pixel)) > 1  # no letter, no white
        if is_colour and pixel not in colours:
            colours.append(pixel)
    return colours


def test_the_legend_names_the_classes_present():
    labels = np.zeros((10, 1000), np.uint8)
    labels[0, :30] = 3
    labels[1, 0] = 2
    labels[2, 0:100] = 7
    names = ["sky", "sea", "boat", "\u6811"]  # the font has no \u6811
    assert pictures.legend_entries(labels, names) == [
        *((0, "sky  98.7 %"), (7, "7  1.0 %"), (3, "3  0.3 %"), (2, "boat  <0.1 %"))
    ]
    legend = pictures.legend(labels, names, PADDLESEG)
    assert box_colours(legend) == [COLOURS[class_id].tolist() for class_id in (0, 7, 3, 2)]


def test_the_legends_entries_are_side_by_side_where_the_image_is_wide():
    labels = np.arange(5, dtype=np.uint8).repeat(400)[None].repeat(10, axis=0)
    wide, high = (pictures.legend(each, (), PADDLESEG) for each in (labels, labels.T))
    assert wide.shape[1] == 2000
    assert 3 * wide.shape[0] < high.shape[0]
    assert high.shape[1] < 500


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 500), (500, 3), (64, 64), (700, 900)])
def test_the_legend_is_below_an_image_of_any_size(height, width):
    labels = np.random.default_rng(0).integers(0, 30, (height, width), dtype=np.uint8)
    image = scene(height, width)
    overlay = decoded(Segmentation(labels, None, image), kinds=("overlay",))["overlay"]
    assert overlay.shape[0] > height
    assert overlay.shape[1] >= width
    below = overlay[height:]
    for class_id, _ in shares(labels):  # each class has a box
        assert (below == COLOURS[class_id]).all(axis=2).sum() >= 100
    assert (below[-3:] == 255).all() and (below[:, -1:] == 255).all()  # nothing is cut off


def test_a_class_name_that_the_font_cannot_show_is_logged_once(caplog):
    caplog.set_level("INFO")
    names = ["\u8f66", "traffic light", " "]
    assert [pictures.class_name(class_id, names) for class_id in (0, 0, 1, 2, 3)] == [
        *("0", "0", "traffic light", "2", "3")
    ]
    [line] = caplog.messages
    assert (
        line == "the legend's font lacks letters of the class name '\u8f66': the legend shows the "
        "class's number"
    )


def test_a_long_class_name_is_shortened():
    assert pictures.class_name(0, ["word " * 600]) == "word word word word word word word..."


@pytest.mark.parametrize("options", [{"kinds": "mask"}, {"kinds": ("masks",)}, {"palette": b"abc"}])
def test_invalid_options_of_pictures_are_refused(options):
    with pytest.raises(ConfigError, match="kinds must be|a palette has"):
        Pictures(**options)


def test_pictures_that_the_model_cannot_give_are_refused():
    with pytest.raises(ConfigError, match="--save score needs probabilities.*only labels"):
        Pictures(kinds=("score",)).check("labels", 48)
    with pytest.raises(ConfigError, match="300 classes, but a mask has 8 bits.*--save label"):
        Pictures(kinds=("mask",)).check("scores", 300)
    Pictures(kinds=("label", "overlay")).check("labels", 300)
    Pictures(kinds=("label", "overlay", "score")).check("scores", 300)
    Pictures().check("labels", 300)
