"""Picture 4 of `draw_examples.py`: a ginger cat among hydrangeas and cosmos on a summer morning."""

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from recipes.example_canvas import Canvas, colour_ramp, ellipse, fractal_noise, mix, place, smoothstep, spline
from recipes.example_cat import draw_cat
from recipes.example_plants import draw_blossom, draw_branch, draw_grass, draw_leaf

WIDTH, HEIGHT = 512, 512
LEAF_SETS = [((176, 222, 110), (44, 122, 72), (214, 244, 168)), ((120, 196, 116), (22, 92, 82), (176, 230, 160)),
             ((206, 226, 104), (76, 138, 58), (238, 250, 180))]  # fmt: skip
COSMOS = [((255, 214, 232), (238, 96, 160), (160, 44, 104)), ((255, 255, 250), (255, 214, 228), (190, 130, 160)),
          ((250, 130, 170), (196, 30, 100), (120, 16, 70))]  # fmt: skip
BALLS = [(62, 246, 48), (450, 226, 52), (24, 342, 44), (486, 330, 46), (112, 330, 44), (414, 322, 46), (112, 186, 30),
         (420, 152, 32)]  # fmt: skip
HYDRANGEA = [((170, 200, 255), (96, 128, 232), (62, 76, 170)), ((222, 190, 255), (150, 112, 224), (92, 66, 164)),
             ((196, 236, 255), (110, 176, 240), (56, 106, 180))]  # fmt: skip
GRASS = [(24, 84, 60), (58, 132, 66), (104, 172, 76), (160, 206, 92), (206, 230, 120)]


def draw_backdrop(canvas, generator):
    """Out-of-focus greenery with the light of the sky coming through."""
    x, y = canvas.grid()
    green = colour_ramp(
        y + 0.25 * x, [(0, (250, 252, 206)), (150, (168, 222, 140)), (330, (70, 154, 104)), (640, (18, 76, 72))]
    )
    clump = fractal_noise(HEIGHT, WIDTH, 100, 100, generator, 6, 0.62)
    green = mix(green, (24, 98, 84), 0.75 * smoothstep(clump, 0.45, 0.72))
    green = mix(green, (232, 248, 180), 0.5 * smoothstep(clump, 0.40, 0.22))
    canvas.set_image(canvas.enlarge(green))
    for _ in range(90):
        leaf = LEAF_SETS[generator.integers(3)]
        base, length = generator.uniform((-20, -20), (532, 420)), generator.uniform(40, 90)
        draw_leaf(canvas, base, length, generator.uniform(0, 6.3), generator.uniform(9, 20), leaf)
    canvas.blur(3.2)
    for _ in range(60):
        centre = generator.uniform((0, 0), (512, 360))
        tone = ((255, 250, 190), (200, 255, 190), (255, 214, 220), (190, 220, 255))[generator.integers(4)]
        canvas.glow(centre, generator.uniform(7, 24), tone, generator.uniform(0.2, 0.5), 0.35)


def draw_hydrangea(canvas, centre, radius, colours, generator):
    """A ball of small four-petalled flowers, lit from the upper left."""
    canvas.shade(ellipse(np.add(centre, (4, 8)), radius, radius * 0.9), (20, 50, 80), 0.5, 6)
    canvas.fill(ellipse(centre, radius * 0.92, radius * 0.82), mix(colours[2], (30, 40, 90), 0.3))
    spots = generator.normal(0, 1, (110, 3))
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    spots[:, 2] = np.abs(spots[:, 2])
    for spot in spots[np.argsort(spots[:, 2])]:
        light = np.clip(0.5 - 0.45 * spot[0] - 0.55 * spot[1] + generator.normal(0, 0.08), 0, 1)
        edge, heart = mix(colours[1], colours[0], light), mix(colours[2], colours[1], light)
        place_ = np.asarray(centre) + radius * spot[:2] * [1, 0.88]
        draw_blossom(canvas, place_, radius * 0.26, generator.uniform(0, 6), (edge, heart, colours[2]),
                     0.6 + 0.4 * spot[2], 4, notched=False, is_simple=True)  # fmt: skip


def draw_bush(canvas, generator):
    """Sharp leaves and hydrangeas on both sides, behind the cat."""
    for index in range(74):
        side = (-1, 1)[index % 2]
        base = (256 + side * generator.uniform(70, 270), generator.uniform(150, 480))
        turn = (math.pi if side < 0 else 0) + generator.normal(0, 0.9) - side * 0.5
        draw_leaf(canvas, base, generator.uniform(46, 86), turn, generator.uniform(12, 21),
                  LEAF_SETS[generator.integers(3)], generator.normal(0, 0.3))  # fmt: skip
    for index, (x, y, radius) in enumerate(BALLS):
        for turn in np.linspace(0.3, 6.5, 6):
            draw_leaf(canvas, (x, y), radius * 1.5, turn + 0.3 * index, radius * 0.34, LEAF_SETS[index % 2])
        draw_hydrangea(canvas, (x, y), radius, HYDRANGEA[index % 3], generator)


def draw_canopy(canvas, generator):
    """Leafy twigs and wisteria hanging into the picture from above."""
    for start, angle, length in (
        ((-10, 20), 0.12, 170),
        ((522, -4), 2.9, 170),
        ((150, -12), 0.3, 130),
        ((400, -14), 2.8, 120),
    ):
        spots = draw_branch(canvas, np.array(start), angle, length, 8, generator, ((70, 58, 48), (166, 140, 100)), 1)
        for spot in spots:
            for _ in range(2):
                draw_leaf(canvas, spot, generator.uniform(24, 42), generator.normal(1.5, 0.9), generator.uniform(6, 10),
                          LEAF_SETS[generator.integers(3)], generator.normal(0, 0.25))  # fmt: skip
    for x, length in ((36, 92), (72, 62), (128, 50), (232, 44), (286, 56), (352, 40), (442, 56), (484, 96)):
        for step in range(int(length)):
            fall = step / length
            spot = (x + generator.normal(0, 12) * (1 - fall) ** 0.8, 8 + length * fall + generator.normal(0, 3))
            edge = mix((236, 222, 255), (176, 140, 240), np.clip(fall + generator.normal(0, 0.15), 0, 1))
            draw_blossom(canvas, np.array(spot), 8.5 - 4.5 * fall, generator.uniform(0, 6),
                         (edge, mix(edge, (140, 100, 220), 0.6), (104, 72, 176)), 0.8, 4, False, True)  # fmt: skip


def draw_front(canvas, generator):
    """Grass, cosmos and leaves between the viewer and the cat."""
    draw_grass(canvas, generator, 1500, (-8, 520), lambda x, depth: 482 + 40 * depth, (26, 62), GRASS, 0.1)
    places = [
        (46, 404),
        (100, 442),
        (20, 458),
        (150, 470),
        (476, 410),
        (430, 466),
        (492, 470),
        (372, 478),
        (78, 486),
        (216, 494),
        (318, 492),
    ]
    for index, (x, y) in enumerate(places):
        canvas.stroke([(x, y), (x + 5, y + 34), (x + generator.normal(0, 8), 520)], 3, (56, 116, 60), taper=(1, 1))
        radius = generator.uniform(19, 27) if y < 475 else generator.uniform(13, 18)
        canvas.shade(ellipse((x + 4, y + 6), radius, radius * 0.8), (10, 50, 40), 0.4, 4)
        draw_blossom(canvas, np.array([x, y]), radius, generator.uniform(0, 6), COSMOS[index % 3],
                     generator.uniform(0.75, 0.95), 8)  # fmt: skip
        for _ in range(26):
            dot = generator.normal(0, radius * 0.1, 2)
            canvas.fill(
                ellipse(np.array([x, y]) + dot, 1.3, 1.3, num_points=8),
                mix((255, 220, 70), (214, 130, 20), generator.random()),
            )


def draw_butterfly(canvas, centre, size, angle):
    for side in (-1, 1):
        for outline, scale in (
            ([(0, 0), (0.35, -0.75), (0.95, -0.95), (1.0, -0.4), (0.5, 0)], 1),
            ([(0, 0), (0.6, 0.05), (0.75, 0.5), (0.35, 0.75), (0.1, 0.4)], 1),
        ):
            wing = spline(np.array(outline) * [side * (0.95 if side > 0 else 0.7), 1], 50, closed=True)
            for step, colour in enumerate(((34, 34, 84), (64, 110, 226), (110, 176, 250), (190, 232, 255))):
                inner = wing * (1 - 0.17 * step) + wing.mean(axis=0) * 0.10 * step
                canvas.fill(place(inner * scale, centre, angle, size), colour)
    canvas.fill(place(ellipse((0, 0.05), 0.07, 0.5), centre, angle, size), (30, 26, 54))
    for side in (-1, 1):
        canvas.stroke(
            place([(0, -0.4), (side * 0.15, -0.7), (side * 0.3, -0.85)], centre, angle, size),
            1.2,
            (30, 26, 54),
            taper=(1, 1),
        )


def add_sunlight(canvas):
    soft = canvas.image.filter(ImageFilter.GaussianBlur(8 * canvas.supersampling))
    canvas.set_image(ImageChops.screen(canvas.image, soft.point(lambda value: max(0, value - 170) * 0.3)))
    beams = Image.new("RGB", canvas.size)
    layer = Canvas(WIDTH, HEIGHT, canvas.supersampling)
    layer.set_image(beams)
    for start, width in ((40, 46), (150, 30), (236, 54)):
        layer.fill(
            [(start, -20), (start + width, -20), (start + width * 2 + 190, 530), (start + 150, 530)], (30, 27, 14)
        )
    layer.blur(10)
    canvas.set_image(ImageChops.screen(canvas.image, layer.image))
    canvas.glow((20, -10), 380, (255, 240, 170), 0.45, 1.8)


def draw_garden(seed):
    generator = np.random.default_rng(seed)
    canvas = Canvas(WIDTH, HEIGHT)
    draw_backdrop(canvas, generator)
    draw_bush(canvas, generator)
    draw_canopy(canvas, generator)
    draw_cat(canvas, generator)
    draw_front(canvas, generator)
    draw_butterfly(canvas, (396, 100), 28, 0.35)
    draw_butterfly(canvas, (112, 128), 18, -0.5)
    add_sunlight(canvas)
    return canvas.finish(generator)
