"""Computes PaddleSeg's sliding windows with numpy. Tests compare the program with it."""

import math

import numpy as np


def paddlesegs_windows(image, crop, stride):
    """Returns the starts of the windows along both sides, by slide_inference's formula."""
    starts = []
    for side, length, step in zip(image, crop, stride, strict=True):
        count = int(np.ceil((side - length) / step)) + 1 if side > length else 1
        ends = [min(number * step + length, side) for number in range(count)]
        starts.append([max(end - length, 0) for end in ends])
    return starts


def monais_weight(y, x, height, width):
    """Returns the weight of a window's pixel, by the formula of MONAI's compute_importance_map."""
    squares = ((y - (height - 1) / 2) / (height / 8)) ** 2 + (
        (x - (width - 1) / 2) / (width / 8)
    ) ** 2
    return max(math.exp(-squares / 2), 1e-3)


def mean_of_windows(window_scores, image, crop, stride, weight=lambda *place: 1):
    """Returns the float64 mean of the windows' scores [C, h, w], by slide_inference's formula.

    `weight` returns the weight of a pixel, given its place in a window and the window's size.
    """
    weights = np.array([[weight(y, x, *crop) for x in range(crop[1])] for y in range(crop[0])])
    tops, lefts = paddlesegs_windows(image, crop, stride)
    total = np.zeros((len(window_scores[0]), *image))
    count = np.zeros(image)
    places = [(top, left) for top in tops for left in lefts]
    for (top, left), scores in zip(places, window_scores, strict=True):
        rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
        total[:, rows, columns] += scores * weights
        count[rows, columns] += weights
    return total / count
