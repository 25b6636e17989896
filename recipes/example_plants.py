"""Blossoms, leaves, branches and grass that several pictures of `draw_examples.py` share."""

import math

import numpy as np

from recipes.example_canvas import mix, place, spline

PETAL = [(0, 0), (0.30, -0.26), (0.62, -0.40), (0.92, -0.28), (1.0, -0.10), (0.93, 0.0)]


def petal_outline(notched=True):
    """A petal of length 1 along x, with the notch of a cherry petal at its tip when asked."""
    half = spline(PETAL if notched else [*PETAL[:4], (1.0, -0.12), (1.03, 0.0)], 16)
    return np.vstack([half, (half * [1, -1])[::-1]])


def draw_blossom(canvas, centre, radius, angle, colours, squash=1.0, num_petals=5, notched=True, is_simple=False):
    """A flower; `colours` holds its edge, its heart and its line colour. A simple one has no stamens."""
    edge, heart, line = colours
    outline = petal_outline(notched) * [1, {4: 1.7, 5: 1.45}.get(num_petals, 5.4 / num_petals)]
    for petal in range(num_petals):
        turned = place(outline, (0, 0), angle + 2 * math.pi * petal / num_petals) * [1, squash]
        canvas.fill(turned * radius * 1.03 + centre, line, 0.75)
        for step in range(6):
            scale = radius * (0.97 - 0.14 * step)
            canvas.fill(turned * scale + centre, mix(edge, heart, (step / 5) ** 1.3))
    for stamen in range(0 if is_simple else 9):
        turn = angle + 0.35 + 2 * math.pi * stamen / 9
        tip = centre + radius * (0.30 + 0.10 * (stamen % 2)) * np.array([math.cos(turn), math.sin(turn) * squash])
        canvas.stroke([centre, tip], radius * 0.035, line, 0.9, taper=(1, 1), num_points=4)
        canvas.fill(place(petal_dot(), tip, 0, radius * 0.05), (255, 226, 130))
    canvas.fill(
        place(petal_dot(), centre, 0, radius * (0.12 if is_simple else 0.07)),
        mix(edge, (255, 255, 255), 0.5) if is_simple else mix(heart, line, 0.5),
    )


def petal_dot():
    turn = np.linspace(0, 2 * math.pi, 10, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def draw_loose_petal(canvas, centre, radius, angle, colours, squash):
    edge, heart, line = colours
    turned = place((petal_outline() - [0.5, 0]) * [1, squash * 1.6], centre, angle, radius)
    canvas.fill(turned, line, 0.5)
    canvas.fill(place((petal_outline() - [0.5, 0]) * [0.94, squash * 1.5], centre, angle, radius), edge)
    canvas.fill(place((petal_outline() - [0.5, 0]) * [0.6, squash * 0.9], centre, angle, radius * 0.9), heart, 0.45)


def draw_leaf(canvas, base, length, angle, width, colours, bend=0.2, num_veins=6):
    """A leaf with a lit half, a dark half and veins; `colours` holds its light, its dark and its vein colour."""
    light, dark, vein = colours
    along = np.linspace(0, 1, 22)
    line = place(np.stack([along, bend * along * (1 - along) * 2], axis=1), base, angle, length)
    half = width * np.sin(math.pi * along**0.8) ** 0.9 * (1 - 0.25 * along)

    def shading(points, along_cells, across):
        lit = np.where(across < 0, 0.15, 0.62) + 0.25 * np.abs(across) - 0.25 * along_cells
        return mix(light, dark, np.clip(lit, 0, 1))

    outline = canvas.ribbon(line, half, shading, num_across=6)
    canvas.stroke(line[[0, 7, 14, 20]], 0.07 * width + 0.5, vein, 0.8, taper=(1, 0))
    side = np.stack([-np.gradient(line[:, 1]), np.gradient(line[:, 0])], axis=1)
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    for index in np.linspace(3, 15, num_veins).astype(int):
        for sign in (-1, 1):
            tip = line[min(index + 4, 21)] + side[min(index + 4, 21)] * half[min(index + 4, 21)] * 0.85 * sign
            canvas.stroke([line[index], tip], 0.05 * width + 0.25, vein, 0.55, taper=(1, 0), num_points=8)
    return outline


def draw_branch(canvas, start, angle, length, width, generator, colours, depth=3):
    """A crooked branch with twigs; returns points along it where blossoms may sit."""
    bark, lit = colours
    turns = angle + np.cumsum(generator.normal(0, 0.16, 7))
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * length / 7
    line = spline(np.vstack([start, start + np.cumsum(steps, axis=0)]), 40)
    half = width / 2 * np.linspace(1, 0.35, 40)
    bumps = generator.normal(0, 0.1, (39, 6))
    canvas.ribbon(line, half, lambda _, along, across: mix(bark, lit, 0.5 - 0.5 * across + bumps), num_across=6)
    spots = [line[index] for index in range(8, 40, 6)]
    if depth:
        for index in (12, 20, 28, 36):
            turn = turns[index // 6] + generator.choice([-1, 1]) * generator.uniform(0.4, 0.9)
            spots += draw_branch(canvas, line[index], turn, length * generator.uniform(0.4, 0.6), half[index] * 1.3,
                                 generator, colours, depth - 1)  # fmt: skip
    return spots


def draw_grass(canvas, generator, num_blades, x_range, ground, height_range, palette, lean=0.3):
    """Curved blades, drawn from back to front; `ground(x, depth)` gives the y of a root, depth in 0..1."""
    depths = np.sort(generator.random(num_blades))
    for depth in depths:
        x, height = generator.uniform(*x_range), generator.uniform(*height_range) * (0.45 + 0.55 * depth)
        root = np.array([x, ground(x, depth)])
        drift = generator.normal(lean, 0.28) * height
        blade = [root, np.add(root, (drift * 0.25, -height * 0.55)), np.add(root, (drift, -height))]
        colour = palette[generator.integers(len(palette))]
        canvas.stroke(
            blade, 1.1 + 2.2 * depth, mix(palette[0], colour, 0.35 + 0.65 * depth), taper=(1, 0), num_points=9
        )
