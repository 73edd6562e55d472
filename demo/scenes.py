"""Draws street scenes with their true label maps, so that the demo needs no other data.

Far things are drawn before near ones. The same seed and number always produce the same bytes.
"""

import itertools

import cv2
import numpy as np

from demo.canvas import (
    BUILDING,
    CLASSES,
    LEAVES,
    ROAD,
    SIDEWALK,
    SKIES,
    SKY,
    VEGETATION,
    Scene,
    grey,
)
from demo.things import FARTHEST, draw_car, draw_person, draw_sign, draw_tree

# Blue, green, red: plaster, sandstone, concrete, brick, ochre, brown, slate, cream.
WALLS = (
    (150, 175, 195),
    (120, 150, 175),
    (135, 135, 135),
    (80, 95, 150),
    (105, 150, 185),
    (80, 105, 130),
    (125, 115, 105),
    (190, 205, 215),
)

DEMO_SIZES = {  # width, height
    "avenue": (480, 320),
    "crossing": (400, 300),
    "corner": (320, 320),
    "boulevard": (560, 300),
}


def draw_scene(seed: int, index: int, width: int = 320, height: int = 240):
    """Returns scene `index` of `seed`: image and labels.

    The image is uint8 BGR [height, width, 3], the labels are uint8 [height, width].
    """
    scene = Scene(np.random.default_rng([seed, index]), width, height)
    random = scene.random
    draw_sky(scene)
    half_road = random.uniform(2.6, 4.2)
    half_walk = half_road + random.uniform(1.8, 3.2)
    draw_ground(scene, half_road, half_walk)
    things = []
    for side in (-1, 1):
        draw_row(scene, side * (half_walk + random.uniform(0.2, 3.0)))
        for _ in range(random.integers(0, 5)):
            things.append((draw_tree, side * random.uniform(half_road + 0.8, half_walk + 3)))
        for _ in range(random.integers(0, 3)):
            things.append((draw_sign, side * random.uniform(half_road + 0.2, half_walk)))
        for _ in range(random.integers(0, 4)):
            things.append((draw_person, side * random.uniform(half_road + 0.3, half_walk)))
        for _ in range(random.integers(0, 4)):
            things.append((draw_car, side * random.uniform(1.2, half_road - 0.9)))
    if random.uniform() < 0.3:
        things.append((draw_person, random.uniform(-half_road, half_road)))
    placed = [
        (random.uniform(3.6, 5.4) * random.uniform(1, FARTHEST[draw]), draw, x)
        for draw, x in things
    ]
    for z, draw, x in sorted(placed, key=lambda item: -item[0]):
        draw(scene, x, z)
    return light(scene), scene.labels


def demo_scenes(seed: int):
    """Yields the name, image and labels of each demo scene.

    Scenes that don't show every class are left out.
    """
    numbers = itertools.count()
    for name, size in DEMO_SIZES.items():
        scenes = (draw_scene(seed + 2000, number, *size) for number in numbers)
        yield name, *next(scene for scene in scenes if shows_every_class(scene[1]))


def shows_every_class(labels: np.ndarray) -> bool:
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    return counts.min() > 0.008 * labels.size


def draw_sky(scene):
    random = scene.random
    top, bottom = np.array(scene.pick(SKIES)), scene.haze
    rows = np.linspace(0, 1, scene.height, dtype=np.float32)[:, None, None]
    scene.image[:] = top * (1 - rows) + bottom * rows
    clouds = scene.noise(scene.width / 5) + 0.6 * scene.noise(scene.width / 12)
    cover = np.clip(clouds + random.uniform(-1, 0.6), 0, 1)[..., None] * random.uniform(0.2, 0.9)
    scene.image[:] = scene.image * (1 - cover) + random.uniform(150, 250) * cover
    scene.labels[:] = SKY


def strip(scene, left, right, near=0.6, far=400.0):
    """Returns the corners, in pixels [4, 2], of a strip of ground along the street."""
    return scene.project([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)])


def draw_ground(scene, half_road, half_walk):
    random = scene.random
    grass = random.uniform() < 0.5
    beyond, label = (scene.pick(LEAVES[:3]), VEGETATION) if grass else (grey(scene), SIDEWALK)
    scene.paint(strip(scene, -300, 300), beyond, label, grain=0.16 if grass else 0.05)
    tiles = random.uniform(0.8, 1.6)
    for side in (-1, 1):
        edges = sorted((side * half_road, side * half_walk))
        scene.paint(strip(scene, *edges), grey(scene, 105, 195), SIDEWALK, grain=0.05, cell=1.5)
        for z in np.arange(1.5, 30, tiles):  # joints between tiles
            joint = [
                (edges[0], 0, z),
                (edges[1], 0, z),
                (edges[1], 0, z + 0.05),
                (edges[0], 0, z + 0.05),
            ]
            scene.darken(scene.project(joint), 0.35)
    scene.paint(
        strip(scene, -half_road, half_road), grey(scene, 50, 135), ROAD, grain=0.09, cell=1.2
    )
    for _ in range(random.integers(0, 4)):  # patches and stains
        x, z = random.uniform(-half_road, half_road), random.uniform(3, 20)
        size = random.uniform(0.4, 1.5)
        patch = [(x - size, 0, z - size), (x + size, 0, z - size), (x + size / 2, 0, z + size)]
        scene.darken(scene.project(patch), random.uniform(0.1, 0.3))
    white = random.uniform(150, 235)
    if random.uniform() < 0.8:
        for z in np.arange(random.uniform(1, 3), 60, random.uniform(4, 7)):
            scene.paint(strip(scene, -0.08, 0.08, z, z + 2.2), (white,) * 3, ROAD, grain=0.08)
    for side in (-1, 1):
        kerb = sorted((side * half_road, side * (half_road + 0.22)))
        scene.paint(strip(scene, *kerb), grey(scene, 130, 215), SIDEWALK, grain=0.05)
        if random.uniform() < 0.4:
            line = sorted((side * (half_road - 0.35), side * (half_road - 0.25)))
            scene.paint(strip(scene, *line), (white,) * 3, ROAD)
    if random.uniform() < 0.25:  # a crossing
        z = random.uniform(5, 14)
        for x in np.arange(-half_road + 0.4, half_road - 0.4, 1.0):
            scene.paint(strip(scene, x, x + 0.5, z, z + 2.5), (white,) * 3, ROAD, grain=0.08)


def draw_row(scene, x):
    """Draws houses, hedges and gaps along one side, from far to near; their fronts are at `x`."""
    random = scene.random
    ends = [random.uniform(2.5, 6)]
    while ends[-1] < 90:
        ends.append(ends[-1] + random.uniform(6, 16))
    for near, far in reversed(list(itertools.pairwise(ends))):
        kind = random.uniform()
        if kind < 0.68:
            draw_house(scene, x, near, far - random.uniform(0, 1.5))
        elif kind < 0.9:
            for _ in range(3):
                draw_tree(scene, x + np.sign(x) * random.uniform(0.5, 4), random.uniform(near, far))


def draw_house(scene, x, near, far):
    random = scene.random
    tall, side = random.uniform(4, 16), np.sign(x)
    wall = np.array(scene.pick(WALLS))
    outer = x + side * random.uniform(6, 14)
    lit = 1.15 if scene.sunny and scene.sun == side else 0.8
    front = [(x, 0, near), (x, 0, far), (x, tall, far), (x, tall, near)]
    gable = [(x, 0, near), (outer, 0, near), (outer, tall, near), (x, tall, near)]
    scene.paint(scene.project(gable), wall * (2 - lit), BUILDING, near, 0.05)
    scene.paint(scene.project(front), wall * lit, BUILDING, (near + far) / 2, 0.05)
    if random.uniform() < 0.6:  # a pitched roof
        ridge, rise = (x + outer) / 2, random.uniform(1, 3)
        slope = [
            (x, tall, near),
            (x, tall, far),
            (ridge, tall + rise, far),
            (ridge, tall + rise, near),
        ]
        end = [(x, tall, near), (outer, tall, near), (ridge, tall + rise, near)]
        roof = np.array(scene.pick(((60, 70, 130), (70, 70, 70), (90, 100, 110))))
        scene.paint(scene.project(slope), roof, BUILDING, near, 0.1)
        scene.paint(scene.project(end), wall * (2 - lit), BUILDING, near, 0.05)
    glass = np.array(scene.pick(((70, 60, 50), (120, 110, 90), (200, 190, 150))))
    storey, bay = random.uniform(2.6, 3.4), random.uniform(1.8, 3.2)
    wide, high = bay * random.uniform(0.4, 0.65), storey * random.uniform(0.4, 0.6)
    for y in np.arange(1.0, tall - high, storey):
        for z in np.arange(near + 0.6, far - wide, bay):
            pane = [(x, y, z), (x, y, z + wide), (x, y + high, z + wide), (x, y + high, z)]
            scene.paint(scene.project(pane), glass * random.uniform(0.7, 1.2), BUILDING, z)
        for offset in np.arange(0.6, abs(outer - x) - wide, bay):
            left = x + side * offset
            pane = sorted((left, left + side * wide))
            scene.box(*pane, y, y + high, near, glass * random.uniform(0.7, 1.2), BUILDING)


def light(scene):
    """Returns the image with light, colour cast, blur and noise, uint8 BGR [H, W, 3]."""
    random = scene.random
    image = scene.image
    patches = 1 + 0.12 * scene.noise(scene.width / 3)[..., None]
    cast = random.normal(1, 0.045, 3).astype(np.float32)
    image = np.clip(image * patches * cast * random.uniform(0.65, 1.12), 0, 255)
    image = 255 * (image / 255) ** random.uniform(0.8, 1.25)
    image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 0.9))
    image = image + random.normal(0, random.uniform(2, 6.5), image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
