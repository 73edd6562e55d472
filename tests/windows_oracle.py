"""Computes PaddleSeg's sliding windows with numpy. Tests compare the program with it."""

import numpy as np


def paddlesegs_windows(image, crop, stride):
    """Returns the starts of the windows along both sides, by slide_inference's formula."""
    starts = []
    for side, length, step in zip(image, crop, stride, strict=True):
        count = int(np.ceil((side - length) / step)) + 1 if side > length else 1
        ends = [min(number * step + length, side) for number in range(count)]
        starts.append([max(end - length, 0) for end in ends])
    return starts


def paddlesegs_mean(window_scores, image, crop, stride):
    """Returns the float64 mean of the windows' scores [C, h, w], by slide_inference's formula."""
    tops, lefts = paddlesegs_windows(image, crop, stride)
    total = np.zeros((len(window_scores[0]), *image))
    count = np.zeros(image)
    places = [(top, left) for top in tops for left in lefts]
    for (top, left), scores in zip(places, window_scores, strict=True):
        rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
        total[:, rows, columns] += scores
        count[rows, columns] += 1
    return total / count
