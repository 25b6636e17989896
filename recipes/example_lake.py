"""Picture 2 of `draw_examples.py`: a shrine gate in a mountain lake at sunset."""

import math
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from recipes.example_canvas import Canvas, colour_ramp, ellipse, fractal_noise, mix, shift_down, smoothstep, spline
from recipes.example_plants import draw_blossom, draw_branch, draw_grass

WIDTH, HEIGHT, HORIZON = 640, 448, 262
SUN = (356.0, 186.0)
SKY = [(0, (38, 44, 108)), (60, (92, 70, 150)), (125, (196, 98, 152)), (180, (250, 146, 124)), (225, (255, 198, 128)),
       (262, (255, 226, 160))]  # fmt: skip
RIDGES = [(226, 46, 150, (206, 116, 140), (250, 176, 150)), (238, 44, 120, (150, 84, 136), (232, 140, 140)),
          (250, 36, 90, (96, 62, 122), (176, 100, 132)), (258, 22, 60, (52, 46, 96), (104, 72, 116))]  # fmt: skip
GRASS = [(20, 30, 44), (34, 66, 62), (64, 100, 62), (128, 142, 66), (206, 170, 88)]


def sky_colours(x, y, generator):
    """Evening sky with two decks of cloud lit from below by the sun, (height, width, 3)."""
    sky = colour_ramp(y, SKY)
    distance = np.hypot(x - SUN[0], (y - SUN[1]) * 1.15)
    sky = mix(sky, (255, 236, 176), 0.75 * np.exp(-distance / 70))
    for cell_height, cell_width, low, lit_shift in ((46, 250, 0.50, 5), (88, 190, 0.54, 9)):
        cloud = fractal_noise(*x.shape, cell_height, cell_width, generator, 7, 0.56)
        thickness = smoothstep(cloud, low, low + 0.26)
        underside = shift_down(cloud[::-1], lit_shift)[::-1] - cloud
        light = np.clip(0.45 - 5.0 * underside + 0.5 * np.exp(-distance / 150), 0, 1)
        shade = mix(mix((70, 60, 128), (176, 92, 148), y / HORIZON), (255, 200, 150), light)
        sky = mix(sky, shade, 0.92 * thickness)
    disc = smoothstep(distance, 25.5, 24.5)
    return mix(sky, (255, 248, 214), disc)


def add_ridge(scene, x, y, ridge, generator):
    """One mountain range: a noise skyline, slopes lit on their sunny side, mist at the foot."""
    base, height, cell, dark, lit = ridge
    skyline = fractal_noise(2, scene.shape[1], 2, cell * 1.6, generator, 7, 0.5)[0]
    skyline = base - height * (skyline * 2.0 - 0.35)
    relief = fractal_noise(*x.shape, cell * 0.8, cell * 0.5, generator, 6, 0.55)
    relief = gaussian_filter(1 - np.abs(2 * relief - 1), 0.8)  # folded noise has sharp crests, as mountains have
    slope = np.gradient(relief, axis=1) * cell * 0.22 + np.gradient(skyline) * 0.5
    light = np.clip(0.32 + slope * np.sign(SUN[0] - x) - (y - skyline) / 160, 0, 1)
    colours = mix(dark, lit, light)
    colours = mix(colours, (255, 196, 160), 0.55 * smoothstep(y, base - 16, HORIZON + 4))
    return mix(scene, colours, smoothstep(y, skyline - 0.6, skyline + 0.6))


def add_forest(scene, x, y, generator):
    """The far shore: a row of conifer tops just above the water."""
    tops = np.full(scene.shape[1], 259.0)
    for centre in generator.uniform(0, WIDTH, 330):
        height = generator.uniform(5, 17) * (0.55 + 0.45 * math.cos(centre / 70)) + 3
        spike = 262 - height * np.clip(1 - np.abs(np.arange(WIDTH) - centre) / (height * 0.3 + 0.8), 0, 1)
        tops = np.minimum(tops, spike)
    tone = fractal_noise(*x.shape, 6, 4, generator, 3)
    colours = mix((30, 32, 66), (100, 70, 96), tone * smoothstep(np.abs(x - SUN[0]), 330, 20))
    return mix(scene, colours, smoothstep(y, tops - 0.5, tops + 0.5))


def draw_gate(canvas):
    """The shrine gate, standing a little below the horizon."""
    red, dark, lit = (176, 42, 44), (72, 20, 44), (255, 136, 84)

    def beam(top, bottom):
        canvas.fill([*top, *bottom[::-1]], dark)
        canvas.fill(
            [(x, y + 0.3) for x, y in top]
            + [(x, y * 0.45 + z * 0.55) for (x, y), (_, z) in zip(bottom, top, strict=True)][::-1],
            red,
        )

    for x, lean in ((176, 5), (264, -5)):
        columns = np.linspace(-5.5, 5.5, 12)
        for left, right in pairwise(columns):
            colour = mix(mix(dark, red, min(1, (left + 5.5) / 6)), lit, max(0, (left - 1) / 5))
            canvas.fill(
                [(x + left + lean, 150), (x + right + lean, 150), (x + right * 1.15, 286), (x + left * 1.15, 286)],
                colour,
            )
        canvas.fill([(x - 8, 272), (x + 8, 272), (x + 8.5, 288), (x - 8.5, 288)], (38, 22, 46))
    beam([(162, 178), (278, 178)], [(162, 187), (278, 187)])
    canvas.fill([(214, 160), (226, 160), (226, 178), (214, 178)], dark)
    canvas.fill([(215.5, 161), (224.5, 161), (224.5, 176), (215.5, 176)], (214, 160, 84))
    top = spline([(142, 140), (180, 149), (220, 151), (260, 149), (298, 140)], 40)
    beam(np.add(top, (0, 2)), np.add(top, (0, 13)))
    canvas.fill(np.vstack([top * [1.02, 1] - [4.4, 6], top[::-1] * [1.02, 1] + [-4.4, 2]]), (44, 26, 58))
    canvas.stroke((top * [1.02, 1] - [4.4, 6])[::4], 1.6, (255, 150, 110), 0.9, taper=(1, 1))
    canvas.stroke([(162, 178), (278, 178)], 1.2, lit, 0.9, taper=(1, 1))
    rope = spline([(184, 188), (202, 197), (220, 199), (238, 197), (256, 188)], 40)
    canvas.stroke(rope[::5], 3.4, (232, 206, 150), taper=(0.7, 0.7))
    for x, y in rope[6:36:9]:
        canvas.fill(
            [(x, y), (x + 4, y + 4), (x + 1, y + 6), (x + 5, y + 11), (x - 2, y + 7), (x + 1, y + 5)], (255, 244, 228)
        )


def add_water(canvas, generator):
    """Below the horizon: the upper picture upside down, bent by ripples that grow towards the viewer."""
    pixels = np.asarray(canvas.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), dtype=float)
    x, y = canvas.grid()
    depth = np.clip((y - HORIZON) / (HEIGHT - HORIZON), 0, 1)
    near = fractal_noise(HEIGHT, WIDTH, 11, 90, generator, 4, 0.6) - 0.5
    far = fractal_noise(HEIGHT, WIDTH, 4, 40, generator, 3, 0.6) - 0.5
    ripple = far + (near - far) * depth
    source_y = np.clip(2 * HORIZON - y + ripple * (5 + 40 * depth), 0, HORIZON - 1)
    source_x = np.clip(x + ripple * (3 + 18 * depth), 0, WIDTH - 1)
    mirror = np.stack([map_coordinates(pixels[..., band], [source_y, source_x], order=1) for band in range(3)], axis=-1)
    mirror = mix(mirror, (36, 34, 92), 0.16 + 0.34 * depth)
    image_of_sun = np.exp(-(((x - SUN[0]) / 30) ** 2) - ((y - 2 * HORIZON + SUN[1]) / 26) ** 2)
    mirror = mix(mirror, (255, 238, 184), np.clip(1.3 * image_of_sun, 0, 0.9) * smoothstep(ripple, -0.3, 0.0))
    path = np.exp(-(((x - SUN[0]) / (15 + 44 * depth)) ** 2)) * smoothstep(ripple, -0.04, 0.12)
    mirror = mix(mirror, (255, 236, 176), 0.95 * path)
    mirror = mix(mirror, (255, 190, 170), 0.30 * smoothstep(ripple, 0.12, 0.3))
    mirror = mix(mirror, (255, 214, 176), 0.6 * np.exp(-np.abs(y - HORIZON) / 2.2))
    base = canvas.image.copy()
    water = canvas.enlarge(mirror)
    cut = HORIZON * canvas.supersampling
    base.paste(water.crop((0, cut, *canvas.size)), (0, cut))
    canvas.set_image(base)


def restore_gate_feet(canvas):
    for x in (176, 264):
        canvas.fill([(x - 8, 272), (x + 8, 272), (x + 8.5, 287), (x - 8.5, 287)], (40, 24, 48))
        canvas.fill([(x - 6.5, 262), (x + 6.5, 262), (x + 6.5, 273), (x - 6.5, 273)], (150, 40, 46))
        canvas.fill([(x + 3, 262), (x + 6.5, 262), (x + 6.5, 273), (x + 3, 273)], (250, 130, 84))
        for radius in (12, 17, 23):
            ring = ellipse((x, 287), radius, radius * 0.2)
            canvas.stroke(ring[:25], 1, (255, 214, 180), 0.7 - radius / 50)


def shore(x, depth):
    """The y of the near bank, low in the middle, higher at both sides; depth 0 is its edge, 1 the picture's."""
    edge = 436 - 76 * (abs(x - 330) / 330) ** 1.6
    return edge + depth * (472 - edge)


def draw_bank(canvas, generator):
    edge = np.array([(x, shore(x, 0.0) - 2) for x in np.linspace(-5, 645, 60)])
    canvas.fill(np.vstack([edge + generator.normal(0, 1.2, edge.shape), [(645, 460), (-5, 460)]]), (22, 30, 46))
    draw_grass(canvas, generator, 3400, (-8, 648), shore, (26, 58), GRASS, 0.16)
    for _ in range(46):
        x = generator.choice([generator.uniform(0, 220), generator.uniform(440, 640)])
        root = np.array([x, shore(x, generator.random())])
        tip = root - [generator.normal(-4, 8), generator.uniform(34, 62)]
        canvas.stroke([root, (root + tip) / 2 + [2, 0], tip], 1.5, (40, 74, 60), taper=(1, 0.6))
        colours = [((255, 214, 160), (255, 140, 96), (140, 48, 70)), ((240, 190, 255), (176, 110, 220), (84, 50, 130)),
                   ((255, 250, 240), (255, 214, 150), (170, 110, 100))][generator.integers(3)]  # fmt: skip
        draw_blossom(canvas, tip, generator.uniform(6, 11), generator.uniform(0, 6), colours, 0.7)


def draw_tree(canvas, generator):
    """A maple branch hanging in from the upper right, close to the eye."""
    leaves = [(255, 170, 84), (236, 92, 62), (190, 48, 66), (124, 32, 70)]
    for start, angle, length in (((668, 20), 3.1, 150), ((660, -16), 2.95, 160), ((664, 84), 3.1, 80)):
        spots = draw_branch(canvas, np.array(start), angle, length, 13, generator, ((34, 22, 40), (120, 64, 62)), 3)
        for spot in spots:
            for _ in range(2):
                base = np.asarray(spot) + generator.normal(0, 7, 2)
                turn, size = generator.uniform(0.4, 2.6), generator.uniform(9, 14)
                tone = leaves[generator.integers(4)]
                if base[1] < 66 + 0.6 * (base[0] - 350):  # keeps the view of the sun free
                    draw_maple_leaf(canvas, base, size, turn, tone)


def draw_maple_leaf(canvas, base, size, turn, colour):
    for offset, length in ((-1.15, 0.62), (1.15, 0.62), (-0.58, 0.88), (0.58, 0.88), (0, 1)):
        tip = base + size * length * np.array([math.cos(turn + offset), math.sin(turn + offset)])
        side = np.array([-math.sin(turn + offset), math.cos(turn + offset)]) * size * 0.15
        middle = (base + tip) / 2
        canvas.fill([base, middle + side, tip, middle - side], mix(colour, (90, 20, 50), 0.25))
        canvas.fill([base, middle + side, tip], mix(colour, (255, 214, 140), 0.2))


def draw_birds(canvas):
    for x, y, size in ((286, 92, 9), (310, 80, 7), (262, 106, 6), (326, 100, 5), (240, 88, 5)):
        canvas.stroke([(x - size, y - size * 0.3), (x - size * 0.45, y - size * 0.5), (x, y)], 1.5, (44, 34, 74))
        canvas.stroke([(x, y), (x + size * 0.4, y - size * 0.6), (x + size, y - size * 0.5)], 1.5, (44, 34, 74))


def draw_lake(seed):
    generator = np.random.default_rng(seed)
    canvas = Canvas(WIDTH, HEIGHT)
    x, y = canvas.grid()
    scene = sky_colours(x, y, generator)
    for ridge in RIDGES:
        scene = add_ridge(scene, x, y, ridge, generator)
    canvas.set_image(canvas.enlarge(add_forest(scene, x, y, generator)))
    canvas.glow(SUN, 150, (255, 190, 110), 0.55)
    draw_birds(canvas)
    draw_gate(canvas)
    add_water(canvas, generator)
    restore_gate_feet(canvas)
    draw_bank(canvas, generator)
    draw_tree(canvas, generator)
    canvas.glow(SUN, 330, (255, 170, 100), 0.25, 1.5)
    return canvas.finish(generator)
