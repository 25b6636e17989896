"""Picture 3 of `draw_examples.py`: a shopping street at night after rain, in one-point perspective.

The street is built in metres: x to the right of its middle, y above the ground, z ahead of the viewer. It is drawn
twice, the first time upside down for the wet ground.
"""

import math
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates

from recipes.example_canvas import Canvas, colour_ramp, ellipse, fractal_noise, mix, shift_down, smoothstep
from recipes.example_walker import draw_walker

WIDTH, HEIGHT = 512, 512
CENTRE, HORIZON, FOCAL, EYE_HEIGHT = 262.0, 316.0, 400.0, 1.7
STREET, KERB = 4.6, 3.3
HAZE = (112, 84, 160)
MOON = (282.0, 92.0)
WALLS = [(62, 54, 98), (84, 60, 96), (50, 66, 106), (98, 70, 92), (58, 50, 84), (74, 76, 116)]
LIGHTS = [(255, 212, 130), (255, 186, 104), (255, 232, 180), (180, 226, 255), (255, 160, 120)]
NEONS = [(255, 84, 130), (88, 220, 255), (255, 196, 84), (150, 255, 190), (196, 130, 255)]


class Street(Canvas):
    """A canvas that takes points in metres; `flip` is -1 while the reflection is drawn."""

    flip = 1

    def project(self, points):
        x, y, z = np.asarray(points, dtype=float).T
        return np.stack([CENTRE + FOCAL * x / z, HORIZON - FOCAL * (y * self.flip - EYE_HEIGHT) / z], axis=1)

    def haze(self, colour, z):
        return mix(colour, HAZE, 0.75 * (1 - math.exp(-z / 60)))

    def panel(self, x, y_range, z_range, colour, opacity=1.0):
        """A rectangle on a wall along the street."""
        (low, high), (near, far) = y_range, z_range
        corners = [(x, low, near), (x, high, near), (x, high, far), (x, low, far)]
        self.fill(self.project(corners), self.haze(colour, near), opacity)

    def board(self, x_range, y_range, z, colour, opacity=1.0):
        """A rectangle that faces the viewer."""
        (left, right), (low, high) = x_range, y_range
        corners = [(left, low, z), (left, high, z), (right, high, z), (right, low, z)]
        self.fill(self.project(corners), self.haze(colour, z), opacity)

    def floor(self, x_range, z_range, colour, opacity):
        (left, right), (near, far) = x_range, z_range
        self.fill(self.project([(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)]), colour, opacity)

    def wire(self, points, width, colour, opacity=1.0):
        self.stroke(self.project(points), width, colour, opacity, taper=(1, 1), num_points=30)

    def lamp(self, point, radius, colour, strength, power=2.0):
        self.glow(self.project([point])[0], radius * FOCAL / point[2], colour, strength, power)


def night_sky(canvas, generator):
    x, y = canvas.grid()
    sky = colour_ramp(y, [(0, (14, 18, 58)), (110, (34, 40, 108)), (220, (92, 70, 150)), (316, (226, 124, 150)),
                          (512, (60, 40, 90))])  # fmt: skip
    distance = np.hypot(x - MOON[0], y - MOON[1])
    sky = mix(sky, (150, 170, 240), 0.55 * np.exp(-distance / 90))
    for cell, low, tone in ((120, 0.50, (86, 84, 160)), (80, 0.56, (150, 120, 186))):
        cloud = fractal_noise(HEIGHT, WIDTH, cell * 0.55, cell * 1.7, generator, 7, 0.58)
        rim = np.clip((cloud - shift_down(cloud, 4)) * 9, 0, 1) * np.exp(-distance / 150)
        sky = mix(sky, mix(np.broadcast_to(tone, sky.shape), (236, 230, 255), np.clip(rim + 0.1, 0, 1)),
                  0.8 * smoothstep(cloud, low, low + 0.25))  # fmt: skip
    crater = fractal_noise(HEIGHT, WIDTH, 26, 26, generator, 4)
    face = mix((246, 236, 206), (176, 164, 186), smoothstep(crater, 0.40, 0.66))
    canvas.set_image(canvas.enlarge(mix(sky, face, smoothstep(distance, 42.6, 41.4))))
    for _ in range(240):
        star = generator.uniform((0, 0), (WIDTH, 250))
        if np.hypot(*(star - MOON)) > 60:
            size = generator.exponential(0.55) + 0.3
            canvas.fill(ellipse(star, size, size, num_points=10), (236, 240, 255), generator.uniform(0.4, 1))
            if size > 1.5:
                for turn in (0, math.pi / 2):
                    canvas.fill(ellipse(star, size * 4, 0.3, turn, 12), (220, 232, 255), 0.8)
    canvas.glow(MOON, 150, (120, 130, 210), 0.45)


def plan_buildings(generator):
    """What stands on both sides, farthest first: (side, near, far, height, wall, seed)."""
    buildings = []
    for side in (-1, 1):
        near = 3.2
        while near < 75:
            depth = generator.uniform(4.2, 7.0)
            height = generator.uniform(6.5, 11.5) + 0.09 * near
            wall = WALLS[generator.integers(len(WALLS))]
            buildings.append((side, near, near + depth, height, wall, int(generator.integers(1 << 30))))
            near += depth
    return sorted(buildings, key=lambda building: -building[1])


def draw_window(street, x, bottom, near, width, generator):
    """A window with frame, pane, curtains and cross bar, on a wall along the street."""
    height = 1.45
    is_lit = generator.random() < 0.74
    pane = np.array(LIGHTS[generator.integers(len(LIGHTS))]) if is_lit else np.array((46, 60, 112))
    street.panel(x, (bottom - 0.14, bottom + height + 0.12), (near - 0.12, near + width + 0.12), (36, 30, 60))
    for step in range(5):
        low, high = bottom + height * step / 5, bottom + height * (step + 1) / 5
        street.panel(
            x, (low, high), (near, near + width), pane * (0.74 + 0.065 * step if is_lit else 0.8 + 0.14 * step)
        )
    if is_lit:
        curtain = mix(pane, (196, 96, 90), generator.uniform(0.2, 0.6))
        for low, high in ((0, 0.22), (0.78, 1)):
            street.panel(x, (bottom, bottom + height), (near + width * low, near + width * high), curtain, 0.8)
        if generator.random() < 0.4:
            street.panel(x, (bottom, bottom + generator.uniform(0.3, 0.8)),
                         (near + width * 0.35, near + width * 0.6), (90, 50, 70), 0.8)  # fmt: skip
    street.panel(x, (bottom, bottom + height), (near + width * 0.48, near + width * 0.53), (44, 36, 66))
    street.panel(x, (bottom + height * 0.62, bottom + height * 0.67), (near, near + width), (44, 36, 66))
    street.panel(x * 0.985, (bottom - 0.24, bottom - 0.12), (near - 0.16, near + width + 0.16), (128, 112, 150))


def draw_front_window(street, x_range, bottom, near, generator):
    """A window on a wall that faces the viewer."""
    left, right = x_range
    is_lit = generator.random() < 0.55
    pane = np.array(LIGHTS[generator.integers(len(LIGHTS))]) * 0.9 if is_lit else np.array((44, 52, 100))
    street.board((left - 0.1, right + 0.1), (bottom - 0.1, bottom + 1.3), near, (34, 28, 56))
    street.board((left, right), (bottom, bottom + 1.2), near, pane)
    street.board((left, right), (bottom + 0.6, bottom + 1.2), near, mix(pane, (255, 255, 255), 0.25), 0.6)
    street.board(((left + right) / 2 - 0.03, (left + right) / 2 + 0.03), (bottom, bottom + 1.2), near, (34, 28, 56))


def draw_balcony(street, x, side, bottom, near, far):
    out = x - side * 0.5
    street.panel(out, (bottom - 0.30, bottom - 0.18), (near, far), (110, 92, 130))
    for z in np.arange(near, far, 0.22):
        street.panel(out, (bottom - 0.2, bottom + 0.55), (z, z + 0.06), (40, 34, 62))
    street.panel(out, (bottom + 0.52, bottom + 0.62), (near, far), (150, 124, 150))
    street.board(sorted((x, out)), (bottom - 0.30, bottom + 0.62), near, (48, 40, 72), 0.8)


def draw_goods(street, x, shelf, z, generator):
    """One thing on a shop's shelf: a box, a ball or a bottle."""
    colour = mix(NEONS[generator.integers(len(NEONS))], (90, 40, 60), generator.uniform(0.0, 0.7))
    kind, height = generator.integers(3), generator.uniform(0.16, 0.34)
    if kind == 0:
        street.panel(x, (shelf, shelf + height), (z, z + 0.24), colour)
        street.panel(x, (shelf + height * 0.6, shelf + height * 0.8), (z, z + 0.24), mix(colour, (255, 255, 255), 0.6))
    elif kind == 1:
        for scale, tone in ((1.0, colour), (0.5, mix(colour, (255, 255, 255), 0.5))):
            ball = [
                (x, shelf + 0.13 + 0.13 * scale * dy, z + 0.12 + 0.13 * scale * dz)
                for dy, dz in ellipse((0, 0), 1, 1, 0, 14)
            ]
            street.fill(street.project(ball), street.haze(tone, z))
    else:
        street.panel(x, (shelf, shelf + height * 0.75), (z + 0.04, z + 0.2), colour)
        street.panel(
            x, (shelf + height * 0.75, shelf + height * 1.2), (z + 0.09, z + 0.15), mix(colour, (255, 240, 220), 0.5)
        )


def draw_shop(street, x, side, near, far, generator):
    """The ground floor: a bright shop window with shelves, a striped awning and paper lanterns."""
    light = np.array(LIGHTS[generator.integers(len(LIGHTS))])
    street.panel(x, (0, 2.9), (near + 0.1, far - 0.1), (40, 28, 52))
    for step in range(8):
        low, high = 0.35 + 0.24 * step, 0.35 + 0.24 * (step + 1)
        street.panel(x, (low, high), (near + 0.3, far - 0.3), light * (0.72 + 0.045 * step))
    for shelf in (0.45, 1.0, 1.55):
        street.panel(x, (shelf - 0.06, shelf), (near + 0.3, far - 0.3), light * 0.45)
        for z in np.arange(near + 0.45, far - 0.6, 0.32):
            draw_goods(street, x, shelf, z, generator)
    for z in np.linspace(near + 0.3, far - 0.3, 4):
        street.panel(x, (0.1, 2.4), (z - 0.06, z + 0.06), (52, 34, 54))
    first, second = generator.permutation(
        [(206, 60, 80), (250, 226, 206), (46, 120, 150), (230, 160, 80), (70, 60, 130)]
    )[:2]
    stripes = np.linspace(near + 0.15, far - 0.15, 13)
    for index, (low, high) in enumerate(pairwise(stripes)):
        corners = [(x, 3.0, low), (x - side * 0.95, 2.45, low), (x - side * 0.95, 2.45, high), (x, 3.0, high)]
        colour = street.haze((first, second)[index % 2], low)
        street.fill(street.project(corners), colour)
        street.panel(x - side * 0.95, (2.22, 2.45), (low, high), mix((first, second)[index % 2], (20, 10, 40), 0.25))
    for z in np.linspace(near + 0.7, far - 0.7, 3):
        draw_lantern(street, x - side * 0.8, 1.95, z)
    street.lamp((x - side * 0.3, 1.4, (near + far) / 2), 2.6, light, 0.33)


def draw_lantern(street, x, y, z):
    centre = street.project([(x, y, z)])[0]
    size = FOCAL / z
    street.glow(centre, size * 0.55, (255, 120, 60), 0.7)
    for step in range(5):
        scale = 1 - step / 5
        street.fill(ellipse(centre, size * 0.15 * scale, size * 0.19 * scale, num_points=24),
                    mix((216, 50, 40), (255, 214, 130), (step / 4) ** 1.2))  # fmt: skip
    for offset in (-0.1, -0.04, 0.04, 0.1):
        reach = size * math.sqrt(max(0, 0.15**2 - (offset * 0.75) ** 2))
        line = [np.add(centre, (-reach, offset * size)), np.add(centre, (reach, offset * size))]
        street.stroke(line, 0.5, (120, 20, 30), 0.6, taper=(1, 1), num_points=4)
    for offset in (-0.19, 0.19):
        street.fill(ellipse(np.add(centre, (0, offset * size)), size * 0.07, size * 0.025, num_points=12), (40, 20, 30))


def draw_sign(street, x, side, bottom, top, near, generator):
    """A hanging neon board that faces the viewer, with shapes in place of letters."""
    left, right = sorted((x - side * 0.12, x - side * 0.95))
    colour = np.array(NEONS[(int(near * 1.37) + side) % len(NEONS)])
    street.board((left - 0.06, right + 0.06), (bottom - 0.06, top + 0.06), near, (30, 20, 48))
    street.board((left, right), (bottom, top), near, colour * 0.95)
    street.board((left + 0.07, right - 0.07), (bottom + 0.07, top - 0.07), near, mix(colour, (40, 16, 70), 0.72))
    middle, size = (left + right) / 2, FOCAL / near
    for index, y in enumerate(np.arange(bottom + 0.4, top - 0.2, 0.55)):
        centre = street.project([(middle, y, near)])[0]
        circle = (0.20, 0.0, 48)
        square, triangle = (0.24, 0.8, 4), (0.23, street.flip * math.pi / 2, 3)
        radius, angle, num_corners = (circle, square, triangle)[(index + int(near)) % 3]
        shape = ellipse(centre, size * radius, size * radius, angle, num_corners)
        street.fill(shape, mix(colour, (255, 255, 255), 0.55))
        street.fill((shape - centre) * 0.55 + centre, mix(colour, (40, 16, 70), 0.6))
    street.lamp((middle, (bottom + top) / 2, near), 1.7, colour, 0.42)


def draw_building(street, building):
    side, near, far, height, wall, seed = building
    generator = np.random.default_rng(seed)
    x = side * STREET
    outside = sorted((x, side * 14.0))
    for low in np.arange(0, height, 0.4):
        tone = mix(mix(wall, (255, 170, 120), 0.42 * math.exp(-low / 2.2)), (30, 26, 70), 0.03 * low)
        tone = tone * generator.uniform(0.93, 1.05)
        street.board(outside, (low, low + 0.4), near, tone * 0.62)
        street.panel(x, (low, low + 0.4), (near, far), tone)
        street.panel(x, (low, low + 0.05), (near, far), tone * 0.8)
    for bottom in np.arange(3.7, height - 1.6, 2.6):
        has_balcony = generator.random() < 0.35
        for window in np.arange(near + 0.5, far - 1.2, 1.75):
            draw_window(street, x, bottom, window, 1.15, generator)
        if has_balcony:
            draw_balcony(street, x, side, bottom, near + 0.2, far - 0.2)
    for bottom in np.arange(2.6, height - 1.6, 2.6):
        for left in np.arange(0.7, 8.0, 1.7):
            draw_front_window(
                street, sorted((side * (STREET + left), side * (STREET + left + 0.9))), bottom, near, generator
            )
    street.panel(x - side * 0.12, (height - 0.35, height + 0.1), (near - 0.1, far + 0.1), (44, 38, 74))
    street.panel(x - side * 0.12, (height + 0.04, height + 0.12), (near - 0.1, far + 0.1), (150, 140, 200))
    street.board(sorted((x - side * 0.12, side * 14)), (height - 0.35, height + 0.1), near, (34, 30, 62))
    draw_roof(street, side, near, height, generator)
    draw_shop(street, x, side, near, far, generator)
    if near > 6:
        bottom = generator.uniform(3.3, 4.2)
        draw_sign(street, x, side, bottom, bottom + generator.uniform(1.8, 3.2), near + 0.3, generator)


def draw_roof(street, side, near, height, generator):
    x = side * (STREET + generator.uniform(0.4, 1.6))
    if generator.random() < 0.5:
        street.board((x - 0.5, x + 0.5), (height, height + 1.2), near + 1, (40, 36, 72))
        street.board((x - 0.6, x + 0.6), (height + 1.2, height + 1.35), near + 1, (84, 76, 124))
    street.wire([(x, height, near + 1), (x, height + 2.2, near + 1)], 1.0, (30, 26, 56))
    for bar in (1.3, 1.6, 1.9):
        street.wire([(x - 0.4, height + bar, near + 1), (x + 0.4, height + bar, near + 1)], 0.8, (30, 26, 56))


def draw_poles(street):
    """Utility poles on the left with sagging wires, and street lamps on the right."""
    poles = [44, 31, 21.5, 14.5, 9.6, 4.0]
    for far, near in pairwise(poles):
        for x, y, sag in ((-4.2, 7.3, 0.5), (-3.5, 7.3, 0.4), (-2.8, 7.3, 0.6), (-3.5, 6.5, 0.8), (-3.5, 6.1, 0.7)):
            middle = (x, y - sag, (near + far) / 2)
            street.wire([(x, y, far), middle, (x, y, near)], 0.7 + 6 / far, (22, 18, 44))
    for z in poles[:-1]:
        for low in np.linspace(-0.13, 0.09, 6):
            tone = mix((30, 26, 50), (150, 110, 120), (low + 0.13) / 0.24)
            street.board((-3.5 + low, -3.5 + low + 0.045), (0, 7.9), z, tone)
        for y in (7.2, 6.4):
            street.board((-4.4, -2.6), (y, y + 0.12), z, (40, 34, 62))
        street.board((-3.3, -2.9), (5.0, 5.8), z, (86, 82, 112))
        street.board((-3.3, -3.2), (5.0, 5.8), z, (130, 124, 150))
        street.wire([(-3.5, 7, z), (0.5, 6.2, z + 1), (STREET, 6.6, z + 2)], 0.6 + 5 / z, (22, 18, 44))
    for z in (38, 25, 16.5, 11.0):
        street.board((3.42, 3.52), (0, 4.6), z, (34, 32, 62))
        street.wire([(3.47, 4.5, z), (3.3, 4.9, z), (2.75, 4.95, z)], 3 + 12 / z, (34, 32, 62))
        street.board((2.45, 2.9), (4.82, 4.93), z, (255, 246, 214))
        street.lamp((2.68, 4.85, z), 1.9, (255, 214, 150), 0.9, 2.4)


def draw_street(street, buildings):
    for building in buildings:
        draw_building(street, building)
    draw_poles(street)
    draw_walker(street)


def wet_ground(street, generator):
    """Turn the upside-down street into its reflection on wet asphalt; works on the lower part of the picture."""
    pixels = np.asarray(street.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), dtype=float)
    x, y = street.grid()
    z = FOCAL * EYE_HEIGHT / np.maximum(y - HORIZON, 1.0)
    across = (x - CENTRE) * z / FOCAL
    texture = fractal_noise(700, 700, 40, 40, generator, 7, 0.75)
    rows, columns = (np.log(z) * 230) % 699, (across * 45 + 350) % 699
    grit = map_coordinates(texture, [rows, columns], order=1)
    puddles = smoothstep(fractal_noise(HEIGHT, WIDTH, 26, 90, generator, 4), 0.40, 0.62)
    depth = smoothstep(y, HORIZON, HEIGHT)
    bend = (grit - 0.5) * (4 + 34 * depth) * (1.15 - 0.85 * puddles)
    mirror = np.stack([gaussian_filter(pixels[..., band], (3.2, 0.7)) for band in range(3)], axis=-1)
    source = [np.clip(y + bend, HORIZON + 1, HEIGHT - 1), np.clip(x + bend * 0.4, 0, WIDTH - 1)]
    mirror = np.stack([map_coordinates(mirror[..., band], source, order=1) for band in range(3)], axis=-1)
    asphalt = mix((30, 28, 58), (86, 76, 116), grit)
    ground = mix(asphalt, mirror, 0.50 + 0.38 * puddles)
    ground += (18 * (grit - 0.5) * (0.4 + depth))[..., None]
    street.set_image(street.enlarge(np.where((y >= HORIZON)[..., None], ground, pixels)))


def draw_markings(street):
    for side in (-1, 1):
        inner, outer = sorted((side * KERB, side * STREET))
        street.floor((inner, outer), (3, 75), (190, 150, 170), 0.20)
        for z in 3 * 1.09 ** np.arange(38):
            street.floor((inner, outer), (z, z * 1.006), (20, 14, 40), 0.5)
        for x in np.linspace(KERB, STREET, 4):
            street.floor(sorted((side * x, side * (x + 0.05))), (3, 75), (20, 14, 40), 0.5)
        street.floor(sorted((side * (KERB - 0.1), side * KERB)), (3, 75), (220, 196, 214), 0.55)
    for x in np.arange(-3.0, 3.0, 0.92):
        street.floor((x, x + 0.5), (4.3, 6.1), (236, 232, 250), 0.42)


def add_bloom(street):
    """Light that spreads from lamps, signs and windows into the damp air."""
    for radius, strength in ((3, 0.25), (14, 0.35)):
        soft = street.image.filter(ImageFilter.GaussianBlur(radius * street.supersampling))
        bright = soft.point(lambda value, strength=strength: max(0, value - 120) * strength)
        street.set_image(ImageChops.screen(street.image, bright))


def draw_city(seed):
    generator = np.random.default_rng(seed)
    street = Street(WIDTH, HEIGHT)
    buildings = plan_buildings(generator)
    night_sky(street, generator)
    sky = street.image.copy()
    cut = round(HORIZON * street.supersampling)
    street.image.paste(sky.crop((0, 0, sky.width, cut)).transpose(Image.Transpose.FLIP_TOP_BOTTOM), (0, cut))
    street.flip = -1
    draw_street(street, buildings)
    wet_ground(street, generator)
    street.image.paste(sky.crop((0, 0, sky.width, cut)), (0, 0))
    street.flip = 1
    draw_markings(street)
    draw_street(street, buildings)
    add_bloom(street)
    return street.finish(generator)
