"""The palettes have the standard colours, and --custom_color is checked."""

import pytest

from paddleseg_infer.errors import ConfigError
from paddleseg_infer.pictures.palettes import CITYSCAPES, PADDLESEG, PALETTES, palette_of
from paddleseg_infer.settings import PALETTE_NAMES


def colours(palette):
    return [tuple(palette[first : first + 3]) for first in range(0, len(palette), 3)]


def test_the_paddleseg_palette_equals_that_of_paddleseg_itself():
    from paddleseg.utils.visualize import get_color_map_list

    assert list(PADDLESEG) == get_color_map_list(256)


def test_the_paddleseg_palette_has_these_colours():
    assert colours(PADDLESEG)[:3] == [(128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert colours(PADDLESEG)[255] == (0, 0, 32)


def test_the_voc_palette_begins_with_black():
    voc = colours(PALETTES["voc"])
    assert voc[:3] == [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
    assert (voc[20], voc[255]) == ((0, 64, 128), (224, 224, 192))  # tvmonitor, void
    assert voc[1:] == colours(PADDLESEG)[:255]


def test_the_cityscapes_palette_has_the_colours_of_its_19_classes():
    palette = colours(palette_of(["cityscapes"]))
    assert palette[:19] == list(CITYSCAPES)
    assert (palette[0], palette[13]) == ((128, 64, 128), (0, 0, 142))  # road, car
    assert palette[19:] == colours(PADDLESEG)[19:]


@pytest.mark.parametrize("name", PALETTES)
def test_each_palette_has_256_colours(name):
    assert len(palette_of([name])) == 768


def test_each_of_256_classes_may_have_a_colour_of_ones_own():
    assert palette_of([str(value % 256) for value in range(768)]) == bytes(range(256)) * 3


def test_custom_colours_come_first_as_in_paddleseg():
    from paddleseg.utils.visualize import get_color_map_list

    own = [255, 0, 0, 1, 2, 3]
    assert list(palette_of(list(map(str, own)))) == get_color_map_list(256, custom_color=own)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["1", "2"], "three numbers for each class, for up to 256 classes; 2 were given"),
        (["0"] * 771, "771 were given"),
        (["1", "2", "256"], "each 0 to 255, .*not '256'"),
        (["1", "2", "-3"], "not '-3'"),
        (["1", "2", "x"], "not 'x'"),
        (["blue"], f"or one of {', '.join(PALETTES)}; not 'blue'"),
        (["voc", "voc"], "not 'voc'"),
        (["\u0663", "2", "3"], "not '\u0663'"),
        ([], "0 were given"),
        (["9" * 5000, "2", "3"], "each 0 to 255"),
    ],
)
def test_an_invalid_palette_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        palette_of(given)


def test_the_help_names_the_palettes():
    assert tuple(PALETTES) == PALETTE_NAMES
