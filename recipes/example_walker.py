"""The walker under the umbrella and the cat of picture 3 of `draw_examples.py`.

Points are metres: x to the right of the walker's feet, y above the ground.
"""

import math

import numpy as np

from recipes.example_canvas import mix, spline

PLACE, DISTANCE = -0.35, 8.6
INK = (30, 24, 44)
COAT = [(-0.2, 1.36), (0.2, 1.36), (0.3, 0.9), (0.42, 0.42), (0, 0.36), (-0.42, 0.42), (-0.3, 0.9)]
COAT_LIGHT = [(0.03, 1.34), (0.2, 1.34), (0.3, 0.9), (0.42, 0.42), (0.16, 0.38)]
HAIR = [(-0.19, 1.72), (0, 1.84), (0.19, 1.72), (0.25, 1.2), (0.14, 0.92), (0, 0.98), (-0.14, 0.92), (-0.25, 1.2)]
CAT_BODY = [(0.75, 0.3), (0.92, 0.34), (1.1, 0.3), (1.12, 0.12), (0.74, 0.12)]
CAT_HEAD = [(1.04, 0.44), (1.08, 0.54), (1.12, 0.46), (1.2, 0.46), (1.24, 0.54), (1.27, 0.42), (1.22, 0.3), (1.08, 0.3)]
NUM_PANELS, UMBRELLA_REACH, UMBRELLA_HEIGHT, UMBRELLA_RISE = 8, 0.95, 1.63, 0.66


def at(street, points):
    return street.project([(x + PLACE, y, DISTANCE) for x, y in points])


def draw_part(street, points, colour):
    street.fill(spline(at(street, points), 60, closed=True), colour)


def draw_person(street):
    for x in (-0.13, 0.13):
        leg = [(x - 0.07, 0.5), (x + 0.07, 0.5), (x + 0.06, 0.06), (x - 0.06, 0.06)]
        boot = [(x - 0.1, 0.16), (x + 0.09, 0.16), (x + 0.1, 0), (x - 0.11, 0)]
        street.fill(at(street, leg), (44, 36, 62))
        street.fill(at(street, boot), (150, 60, 60))
    draw_part(street, COAT, (62, 92, 150))
    draw_part(street, COAT_LIGHT, (96, 134, 190))
    for x in (-0.2, 0, 0.2):
        street.stroke(at(street, [(x * 0.5, 1.0), (x, 0.7), (x * 1.3, 0.42)]), 1.3, (30, 46, 96))
    draw_part(street, HAIR, (52, 34, 54))
    for x in (-0.14, -0.05, 0.05, 0.14):
        street.stroke(at(street, [(x * 0.5, 1.75), (x, 1.4), (x, 1.0)]), 0.9, (150, 96, 110), 0.8)


def dome(x):
    return UMBRELLA_HEIGHT + UMBRELLA_RISE * math.sqrt(max(0, 1 - (x / UMBRELLA_REACH) ** 2))


def draw_umbrella(street):
    """Eight panels of cloth, each ending in a small arch, over the dark inside."""
    across = np.linspace(-UMBRELLA_REACH, UMBRELLA_REACH, 60)
    inside = [(x, 1.72 - 0.06 * math.sin(abs(x) / UMBRELLA_REACH * 4 * math.pi) - 0.1 * x * x) for x in across]
    street.fill(at(street, inside + [(x, dome(x)) for x in across[::-1]]), (140, 24, 52))
    width = 2 * UMBRELLA_REACH / NUM_PANELS
    for index in range(NUM_PANELS):
        low = -UMBRELLA_REACH + index * width
        tone = mix((206, 44, 64), (255, 136, 110), 0.5 + 0.5 * math.sin(index * 0.75 - 1.2))
        top = [(x, dome(x)) for x in np.linspace(low, low + width, 8)]
        arch = [(x, 1.70 - 0.1 * x * x + 0.05 * math.sin((x - low) / width * math.pi)) for x, _ in top[::-1]]
        street.fill(at(street, top + arch), tone)
        street.stroke(at(street, [(0, 2.29), (low * 0.7, 2.1), (low, 1.68)]), 1, (110, 16, 44), 0.8)
    street.stroke(at(street, [(0, 2.27), (0, 2.4)]), 2, (60, 20, 40), taper=(1, 1), num_points=4)


def draw_street_cat(street):
    for points in (CAT_BODY, CAT_HEAD):
        draw_part(street, points, INK)
    for x in (0.78, 0.86, 1.0, 1.07):
        street.stroke(at(street, [(x, 0.2), (x, 0)]), 3, INK, taper=(1, 0.7), num_points=4)
    street.stroke(at(street, [(0.76, 0.26), (0.64, 0.42), (0.68, 0.6)]), 2.6, INK, taper=(1, 0.4))


def draw_walker(street):
    draw_person(street)
    draw_umbrella(street)
    draw_street_cat(street)
