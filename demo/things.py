"""Draws the things in a street, each at a given position: trees, cars, people and signs."""

import numpy as np

from demo.canvas import CAR, LEAVES, PERSON, SIGN, VEGETATION, grey

PAINTS = (
    (60, 60, 180),
    (170, 90, 50),
    (200, 200, 200),
    (50, 50, 50),
    (120, 120, 120),
    (70, 120, 70),
    (80, 160, 200),
    (150, 150, 90),
    (110, 80, 130),
)
COATS = (
    (50, 50, 200),
    (190, 90, 40),
    (40, 130, 220),
    (60, 200, 220),
    (120, 60, 130),
    (40, 40, 40),
    (110, 150, 50),
)
BOARDS = ((35, 35, 200), (190, 90, 25), (40, 190, 230), (225, 225, 225))
RIMS = ((225, 225, 225), (35, 35, 200))


def cast_shadow(scene, x, z, wide, long):
    strength = 0.45 if scene.sunny else 0.2
    reach = scene.sun * long
    foot = [
        (x - wide, 0, z - 0.1),
        (x + wide, 0, z - 0.1),
        (x + wide + reach, 0, z + 0.6),
        (x - wide + reach, 0, z + 0.6),
    ]
    scene.darken(scene.project(foot), strength)


def draw_tree(scene, x, z):
    random = scene.random
    leaf = np.array(scene.pick(LEAVES))
    bush = random.uniform() < 0.25
    trunk = 0.0 if bush else random.uniform(1.4, 3.0)
    crown = random.uniform(0.5, 0.9) if bush else random.uniform(0.9, 2.3)
    cast_shadow(scene, x, z, crown * 0.7, crown * 1.5)
    if trunk:
        bark = scene.pick(((50, 70, 90), (80, 90, 100)))
        thick = random.uniform(0.1, 0.22)
        scene.box(x - thick, x + thick, 0, trunk + crown * 0.5, z, bark, VEGETATION, grain=0.15)
    for _ in range(random.integers(7, 13)):
        dx, dy = random.normal(0, 0.42, 2) * crown
        size = crown * random.uniform(0.35, 0.6)
        bright = 1 + 0.35 * (dy / crown) + 0.2 * scene.sun * -dx / crown
        cell = max(1.2, 0.18 * scene.focal / z)
        scene.ellipse(
            x + dx,
            trunk + crown * 0.8 + dy,
            z,
            size,
            size,
            leaf * bright,
            VEGETATION,
            grain=0.3,
            cell=cell,
            depth=z,
        )


def draw_car(scene, x, z):
    random = scene.random
    paint, glass = (
        np.array(scene.pick(PAINTS)),
        np.array(scene.pick(((60, 55, 50), (150, 140, 120)))),
    )
    wide, tall = random.uniform(0.8, 1.0), random.uniform(1.35, 1.9)
    long, belt = random.uniform(3.4, 4.8), random.uniform(0.8, 1.0)
    cast_shadow(scene, x, z, wide * 1.15, 0.8)
    inner = x - np.sign(x) * wide  # the side that the camera can see
    z_far = z + long
    flank = [(inner, 0.25, z), (inner, 0.25, z_far), (inner, belt, z_far), (inner, belt, z)]
    scene.paint(scene.project(flank), paint * 0.8, CAR, z)
    top = x - np.sign(x) * wide * 0.75  # the roof is narrower than the body
    cabin = [(inner, belt, z), (inner, belt, z_far * 0.8 + z * 0.2)]
    cabin += [(top, tall, z + long * 0.6), (top, tall, z + 0.3)]
    scene.paint(scene.project(cabin), paint * 0.85, CAR, z)
    middle = np.mean(cabin, axis=0)
    side_window = [middle + (np.array(corner) - middle) * 0.75 for corner in cabin]
    scene.paint(scene.project(side_window), glass * 0.8, CAR, z)
    roof = [
        (x - wide * 0.75, tall, z + 0.3),
        (x + wide * 0.75, tall, z + 0.3),
        (x + wide * 0.75, tall, z + long * 0.6),
        (x - wide * 0.75, tall, z + long * 0.6),
    ]
    scene.paint(scene.project(roof), paint * 1.15, CAR, z)
    for offset in (-0.75, 0.75):
        scene.box(x + wide * offset - 0.12, x + wide * offset + 0.12, 0, 0.45, z, (25, 25, 25), CAR)
    for at in (z + long * 0.18, z + long * 0.8):
        ring = [
            (inner, 0.32 + 0.32 * np.sin(a), at + 0.34 * np.cos(a)) for a in np.linspace(0, 6.3, 13)
        ]
        scene.paint(scene.project(ring), (28, 28, 28), CAR)
    scene.box(x - wide, x + wide, 0.25, belt, z, paint, CAR, grain=0.04, cell=4)
    window = [
        (x - wide, belt, z),
        (x + wide, belt, z),
        (x + wide * 0.75, tall, z + 0.3),
        (x - wide * 0.75, tall, z + 0.3),
    ]
    scene.paint(scene.project(window), paint * 0.95, CAR, z)
    pane = [
        (x - wide * 0.8, belt + 0.05, z),
        (x + wide * 0.8, belt + 0.05, z),
        (x + wide * 0.65, tall - 0.1, z + 0.28),
        (x - wide * 0.65, tall - 0.1, z + 0.28),
    ]
    scene.paint(scene.project(pane), glass, CAR, z)
    lamp = (40, 40, 200) if random.uniform() < 0.5 else (220, 235, 240)
    for offset in (-0.75, 0.75):
        middle = x + wide * offset
        scene.box(middle - 0.14, middle + 0.14, belt - 0.28, belt - 0.12, z, lamp, CAR)
    scene.box(x - 0.26, x + 0.26, 0.42, 0.55, z, (200, 210, 215), CAR)


def draw_person(scene, x, z):
    random = scene.random
    tall, turn = random.uniform(1.5, 1.9), random.uniform(0.6, 1.0)
    skin = scene.pick(((130, 160, 210), (90, 120, 170), (60, 80, 110)), 8)
    coat, legs = scene.pick(COATS), scene.pick(((90, 60, 50), (50, 50, 50), (110, 120, 130)))
    step, wide = random.uniform(0.02, 0.28), 0.28 * turn
    cast_shadow(scene, x, z, 0.2, 0.9)
    for foot in (-step, step):
        leg = [
            (x - 0.14, tall * 0.5, z),
            (x + 0.14, tall * 0.5, z),
            (x + foot + 0.12, 0, z),
            (x + foot - 0.12, 0, z),
        ]
        scene.paint(scene.project(leg), legs, PERSON, z, 0.08)
    torso = [
        (x - wide, tall * 0.82, z),
        (x + wide, tall * 0.82, z),
        (x + wide * 0.8, tall * 0.44, z),
        (x - wide * 0.8, tall * 0.44, z),
    ]
    scene.paint(scene.project(torso), coat, PERSON, z, 0.1)
    for arm in (-1, 1):
        hand = x + arm * (wide + random.uniform(0.02, 0.16))
        sleeve = [
            (x + arm * wide * 0.8, tall * 0.82, z),
            (x + arm * wide * 1.2, tall * 0.8, z),
            (hand + 0.07, tall * 0.47, z),
            (hand - 0.07, tall * 0.47, z),
        ]
        scene.paint(scene.project(sleeve), np.array(coat) * 0.85, PERSON, z)
    scene.ellipse(x, tall * 0.92, z, 0.135, 0.16, skin, PERSON, depth=z)
    hair = np.array(scene.pick(((40, 50, 60), (60, 110, 160), (120, 120, 120))))
    scene.ellipse(x, tall * 0.965, z, 0.14, 0.09, hair, PERSON, depth=z)


def draw_sign(scene, x, z):
    random = scene.random
    pole, size = random.uniform(2.0, 2.7), random.uniform(0.45, 0.68)
    cast_shadow(scene, x, z, 0.06, 0.9)
    scene.box(x - 0.1, x + 0.1, 0, pole, z, grey(scene, 120, 180), SIGN)
    board, rim = np.array(scene.pick(BOARDS, 8)), np.array(scene.pick(RIMS, 8))
    corners = int(random.choice([3, 4, 8, 24]))
    turned = {3: np.pi / 2, 4: np.pi / 4, 8: np.pi / 8, 24: 0.0}[corners]
    for scale, colour in ((1.0, rim), (0.8, board)):
        angles = turned + np.arange(corners) * 2 * np.pi / corners
        ring = [(x + size * scale * np.cos(a), pole + size * scale * np.sin(a), z) for a in angles]
        scene.paint(scene.project(ring), colour, SIGN, z)
    scene.box(x - size * 0.4, x + size * 0.4, pole - size * 0.1, pole + size * 0.1, z, rim, SIGN)


# The largest distance of a thing, divided by the smallest. Small things must be nearer.
FARTHEST = {draw_tree: 4.0, draw_car: 3.0, draw_person: 1.5, draw_sign: 1.5}
