"""The canvas on which a street scene is drawn: its pixels, its labels and its camera.

World coordinates are in metres: x to the right of the camera, y up from the ground, z away from
the camera.
"""

import cv2
import numpy as np

CLASSES = ("sky", "building", "vegetation", "road", "sidewalk", "car", "person", "sign")
SKY, BUILDING, VEGETATION, ROAD, SIDEWALK, CAR, PERSON, SIGN = range(len(CLASSES))

# Colours are blue, green, red. The classes share colours on purpose, so that a model can recognise
# a thing only by its shape, its texture and its surroundings.
SKIES = ((235, 190, 120), (225, 215, 205), (190, 190, 190), (150, 190, 240), (240, 220, 180))
LEAVES = ((50, 110, 60), (40, 90, 90), (60, 130, 110), (40, 100, 160), (70, 120, 70))
FOG_START = 25.0  # metres


class Scene:
    """An image and its label map while they are drawn."""

    def __init__(self, random: np.random.Generator, width: int, height: int):
        self.random = random
        self.width, self.height = width, height
        self.image = np.zeros((height, width, 3), np.float32)  # BGR, 0 to 255
        self.labels = np.zeros((height, width), np.uint8)
        self.horizon = height * random.uniform(0.36, 0.5)
        self.centre = width * random.uniform(0.44, 0.56)
        self.focal = height * random.uniform(0.9, 1.2)
        self.camera = random.uniform(1.4, 2.2)  # metres above the ground
        self.haze = np.array(self.pick(SKIES), np.float32)
        self.sun = random.choice([-1.0, 1.0])  # the side on which shadows fall
        self.sunny = random.uniform() < 0.6

    def pick(self, colours, spread=11.0):
        """Returns one of the colours, varied at random: three floats from 10 to 245."""
        colour = np.array(colours[self.random.integers(len(colours))], np.float32)
        varied = colour * self.random.uniform(0.75, 1.2) + self.random.normal(0, spread, 3)
        return tuple(float(value) for value in np.clip(varied, 10, 245))

    def noise(self, cell, width=None, height=None):
        """Returns smooth noise, float32 [height, width], with bumps of `cell` pixels.

        Its mean is 0 and its standard deviation about 1.
        """
        width, height = width or self.width, height or self.height
        grid = (max(2, round(height / cell)), max(2, round(width / cell)))
        coarse = self.random.normal(0, 1, grid).astype(np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    def project(self, points):
        """Returns the pixel positions [N, 2] of world points [N, 3]."""
        points = np.asarray(points, np.float32)
        z = np.maximum(points[:, 2], 0.3)
        x = self.centre + self.focal * points[:, 0] / z
        y = self.horizon + self.focal * (self.camera - points[:, 1]) / z
        return np.stack([x, y], axis=1)

    def paint(self, pixels, colour, label, depth=0.0, grain=0.0, cell=2.0):
        """Fills a polygon whose corners are the pixel positions [N, 2].

        `depth` is its distance in metres, for the fog. `grain` is the strength of its texture, and
        `cell` the size of its bumps in pixels.
        """
        corners = np.clip(pixels, -4 * self.width, 5 * self.width)
        left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
        right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
        width, height = min(right, self.width) - left, min(bottom, self.height) - top
        if width < 1 or height < 1:
            return
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [np.round((corners - (left, top)) * 16).astype(np.int32)], 1, shift=4)
        inside = mask > 0
        fog = min(0.75, max(0.0, depth - FOG_START) / 90)
        values = np.empty((height, width, 3), np.float32)
        values[:] = np.float32(colour) * (1 - fog) + self.haze * fog
        if grain:
            values *= 1 + grain * (1 - fog) * self.noise(cell, width, height)[..., None]
        part = np.s_[top : top + height, left : left + width]
        self.image[part][inside] = values[inside]
        self.labels[part][inside] = label

    def darken(self, pixels, strength):
        """Draws a soft shadow over a polygon; `strength` is from 0 to 1 (black)."""
        mask = np.zeros((self.height, self.width), np.float32)
        corners = np.clip(pixels, -4 * self.width, 5 * self.width)
        cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], strength)
        self.image *= 1 - cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None]

    def ellipse(self, x, y, z, radius_x, radius_y, colour, label, grain=0.0, cell=2.0, depth=0.0):
        """Draws an upright ellipse around a world point."""
        angles = np.linspace(0, 2 * np.pi, 25)
        ring = [(x + radius_x * np.cos(a), y + radius_y * np.sin(a), z) for a in angles]
        self.paint(self.project(ring), colour, label, depth, grain, cell)

    def box(self, left, right, bottom, top, z, colour, label, **texture):
        """Draws an upright rectangle that faces the camera."""
        corners = [(left, bottom, z), (right, bottom, z), (right, top, z), (left, top, z)]
        self.paint(self.project(corners), colour, label, z, **texture)


def grey(scene, low=80, high=180):
    level = scene.random.uniform(low, high)
    return tuple(level + scene.random.normal(0, 7, 3))
