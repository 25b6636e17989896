"""The ginger cat of picture 4 of `draw_examples.py`, from tail to whiskers."""

import math

import numpy as np
from PIL import ImageChops

from recipes.example_canvas import colour_ramp, ellipse, mix, place, smoothstep, spline

FUR, FUR_DARK, FUR_LIGHT, FUR_LINE = (246, 168, 88), (206, 106, 44), (255, 244, 226), (110, 52, 40)
LEG = [(8, 352), (44, 350), (46, 420), (52, 466), (44, 486), (14, 486), (5, 466), (6, 410)]
STRIPES = [[(20, 122), (20, 146), (14, 168)], [(42, 128), (42, 148), (34, 172)], [(62, 138), (60, 154), (52, 170)],
           [(106, 206), (88, 210), (74, 222)], [(108, 226), (88, 228), (72, 236)],
           [(98, 248), (80, 246), (66, 250)]]  # fmt: skip
HEAD = [(256, 117), (292, 124), (330, 146), (352, 186), (360, 226), (338, 254), (300, 274), (256, 280), (212, 274),
        (174, 254), (152, 226), (160, 186), (182, 146), (220, 124)]  # fmt: skip
BODY = [(256, 240), (304, 254), (330, 304), (340, 362), (368, 404), (382, 446), (364, 480), (256, 486), (148, 480),
        (130, 446), (144, 404), (172, 362), (182, 304), (208, 254)]  # fmt: skip


def draw_fur(canvas, mask, flow, generator, num_hairs, length, jitter=0.16):
    """Fine hairs that take the colour painted under them; `flow(point)` gives their direction."""
    inside, colours = np.asarray(mask), np.asarray(canvas.image)
    scale, drawn = canvas.supersampling, 0
    while drawn < num_hairs:
        point = generator.uniform((0, 0), (canvas.width, canvas.height))
        column, row = (point * scale).astype(int)
        if inside[row, column] < 128:
            continue
        direction = np.asarray(flow(point), dtype=float)
        direction /= np.linalg.norm(direction) + 1e-9
        side = np.array([-direction[1], direction[0]])
        reach = length * generator.uniform(0.5, 1.2)
        tip = point + direction * reach + side * generator.normal(0, 0.16) * reach
        tone = generator.normal(0, jitter)
        colour = mix(colours[row, column], (255, 250, 232) if tone > 0 else FUR_DARK, min(0.6, abs(tone)))
        canvas.fill([point - side * 0.55, point + side * 0.55, tip], colour, 0.85)
        drawn += 1


def draw_tail(canvas, generator):
    line = spline([(330, 452), (392, 458), (428, 424), (418, 376), (436, 344)], 80)
    half = 17 * np.sin(math.pi * (0.16 + 0.80 * np.linspace(0, 1, 80))) ** 0.35

    def shading(_, along, across):
        bands = smoothstep(np.sin(along * 34 + across * 0.8), 0.1, 0.5)
        colours = mix(mix(FUR, FUR_DARK, 0.85 * bands), FUR_LIGHT, smoothstep(along, 0.86, 0.95))
        return mix(colours, (120, 50, 60), np.clip(0.1 + 0.4 * across, 0, 0.5))

    outline = canvas.ribbon(line, half, shading, num_across=14)
    canvas.stroke(np.vstack([outline[:80:8], outline[80::8]]), 2.2, FUR_LINE, taper=(1, 1), num_points=160)
    mask = canvas.mask(outline)

    def along_tail(point):
        nearest = np.argmin(np.linalg.norm(line - point, axis=1))
        return line[min(79, nearest + 2)] - point - [0, 3]

    draw_fur(canvas, mask, along_tail, generator, 700, 9)


def paint_body(canvas, mask):
    x, y = canvas.grid()
    tone = smoothstep(np.abs(x - 250) + 0.12 * (y - 300), 30, 120)
    colours = mix(mix(FUR, (255, 206, 136), 0.4 * (1 - tone)), (214, 118, 66), 0.65 * tone)
    bib = smoothstep(((x - 256) / (48 - 0.06 * (y - 280))) ** 2 + ((y - 305) / 76) ** 2, 1.25, 0.7)
    colours = mix(colours, FUR_LIGHT, bib)
    colours = mix(colours, (140, 70, 90), 0.42 * smoothstep(x - 256, 40, 130))
    canvas.paint(mask, canvas.enlarge(colours))
    for side in (-1, 1):
        for step in range(6):
            y = 320 + 24 * step
            edge = 256 + side * (72 + 7 * step)
            canvas.shade(spline([(edge + side * 14, y - 10), (edge - side * 16, y), (edge - side * 36, y + 12),
                                 (edge - side * 12, y + 10)], 40, closed=True), FUR_DARK, 0.85, 0.8, mask)  # fmt: skip


def draw_legs(canvas, mask, generator):
    """Front legs with white socks, and the haunches behind them."""
    for side in (-1, 1):
        canvas.shade(ellipse((256 + side * 44, 420), 16, 60), (130, 60, 70), 0.5, 7, mask)
        canvas.stroke((ellipse((82, 438), 44, 50) * [side, 1] + [256, 0])[24:42], 2, FUR_LINE, 0.8)
        foot = spline([(256 + side * 60, 470), (256 + side * 84, 458), (256 + side * 108, 466), (256 + side * 112, 482),
                       (256 + side * 64, 484)], 50, closed=True)  # fmt: skip
        canvas.fill(foot, FUR_LIGHT)
        canvas.stroke(foot[::5], 2, FUR_LINE, taper=(1, 1), num_points=90)
    for side in (1, -1):
        leg = spline(np.array(LEG) * [side, 1] + [256, 0], 90, closed=True)
        leg_mask = canvas.mask(leg, 0.4)
        x, y = canvas.grid()
        leg_mask = ImageChops.multiply(leg_mask, canvas.enlarge(255 * smoothstep(y, 358, 396)))
        colours = mix((250, 178, 100), FUR_LIGHT, smoothstep(y, 428, 446))
        colours = mix(colours, (150, 76, 90), 0.5 * smoothstep(x - 256 - side * 26, -2, 26))
        canvas.paint(leg_mask, canvas.enlarge(colours))
        for y in (384, 402, 420):
            canvas.stroke(
                [(256 + side * 44, y - 5), (256 + side * 30, y), (256 + side * 18, y - 2)],
                5.5,
                FUR_DARK,
                0.8,
                taper=(1, 0),
            )
        draw_fur(canvas, leg_mask, lambda point: (0, 1), generator, 900, 9)
        canvas.stroke([(256 + side * 46, 384), (256 + side * 47, 420), (256 + side * 52, 464), (256 + side * 44, 486),
                       (256 + side * 16, 486), (256 + side * 5, 466), (256 + side * 5, 410)], 2.2, FUR_LINE,
                      taper=(0, 0), num_points=90)  # fmt: skip
        for toe in (22, 34):
            canvas.stroke([(256 + side * toe, 472), (256 + side * toe, 484)], 1.6, FUR_LINE, 0.8, taper=(0.2, 1))


def draw_body(canvas, generator):
    outline = spline(BODY, 160, closed=True)
    mask = canvas.mask(outline)
    canvas.shade(np.add(outline, (10, 10)), (10, 46, 44), 0.5, 9)
    paint_body(canvas, mask)
    draw_fur(canvas, mask, lambda point: ((point[0] - 256) * 0.35, 60), generator, 3600, 12)
    canvas.stroke(np.vstack([outline, outline[:1]])[::4], 2.4, FUR_LINE, taper=(1, 1), num_points=300)
    draw_legs(canvas, mask, generator)
    canvas.shade(np.add(spline(HEAD, 90, closed=True), (6, 20)), (120, 56, 80), 0.45, 5, mask)


def draw_ear(canvas, side, generator):
    def at(points):
        return [(256 + side * x, y) for x, y in points]

    outer = np.vstack(
        [spline(at([(22, 128), (44, 84), (84, 58)]), 30), spline(at([(84, 58), (99, 104), (90, 170)]), 30)]
    )
    mask = canvas.mask(outer)
    canvas.fill(outer, (236, 150, 78))
    inner = np.vstack(
        [spline(at([(42, 134), (56, 100), (81, 76)]), 30), spline(at([(81, 76), (90, 108), (84, 160)]), 30)]
    )
    canvas.shade(inner, (255, 176, 170), 1, 1.2, mask)
    canvas.shade(np.add(inner, (side * 6, 12)), (220, 108, 116), 0.7, 5, mask)
    draw_fur(canvas, mask, lambda point: (side * 14, -30), generator, 500, 9, 0.12)
    for index in range(13):
        base = at([(42 + 3.4 * index, 146 - 0.2 * index)])[0]
        tip = at([(54 + 2.4 * index + generator.normal(0, 3), 104 + 0.9 * abs(index - 5) ** 1.4)])[0]
        canvas.stroke(
            [base, ((base[0] + tip[0]) / 2 - side * 3, (base[1] + tip[1]) / 2), tip],
            4,
            FUR_LIGHT,
            0.9,
            taper=(1, 0),
            num_points=14,
        )
    canvas.stroke(outer[:30:5], 2.4, FUR_LINE, taper=(1, 1))
    canvas.stroke(outer[30::5], 2.4, FUR_LINE, taper=(1, 1))


def paint_head(canvas, mask):
    x, y = canvas.grid()
    colours = mix((255, 190, 112), (240, 150, 78), smoothstep(np.hypot(x - 240, y - 190), 20, 110))
    muzzle = ((x - 256) / (30 + 0.36 * np.clip(y - 190, 0, 90))) ** 2 + ((y - 262) / 52) ** 2
    blaze = np.abs(x - 256) - 5 - np.clip(y - 170, -40, 60) * 0.12
    white = np.maximum(smoothstep(muzzle, 1.25, 0.8), smoothstep(blaze, 5, 0) * smoothstep(y, 168, 190))
    colours = mix(colours, FUR_LIGHT, white)
    colours = mix(colours, (150, 70, 90), 0.4 * smoothstep(x + 0.3 * y - 320, 40, 110))
    canvas.paint(mask, canvas.enlarge(colours))


def draw_stripes(canvas, mask):
    marks = [[(256, 124), (256, 146), (256, 166)]]
    for side in (-1, 1):
        marks += [np.array(stripe) * [side, 1] + [256, 0] for stripe in STRIPES]
    for mark in marks:
        line = spline(mark, 30)
        half = 5.2 * np.sin(math.pi * np.linspace(0.1, 1, 30)) ** 0.8
        normal = np.stack([-np.gradient(line[:, 1]), np.gradient(line[:, 0])], axis=1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        shape = np.vstack([line + normal * half[:, None], (line - normal * half[:, None])[::-1]])
        canvas.shade(shape, FUR_DARK, 0.9, 0.7, mask)


def draw_cat_eye(canvas, side):
    centre = np.array([256 + side * 45, 206.0])
    upper = spline([(-27, 10), (-14, -17), (6, -22), (24, -10), (29, -2)], 40)
    lower = spline([(29, -2), (24, 15), (4, 24), (-16, 20), (-27, 10)], 40)
    shape = np.vstack([upper, lower]) * [side, 1] + centre
    clip = canvas.mask(shape)
    canvas.shade(place((shape - centre) * 1.12, centre), FUR_LIGHT, 0.7, 1.5)
    x, y = canvas.grid()
    ramp = colour_ramp(
        y - centre[1], [(-22, (36, 92, 60)), (-4, (96, 172, 66)), (12, (204, 224, 92)), (24, (255, 246, 160))]
    )
    canvas.paint(clip, canvas.enlarge(ramp))
    for turn in np.linspace(0, 2 * math.pi, 40, endpoint=False):
        ray = np.array([math.cos(turn) * 25, math.sin(turn) * 23])
        rim = place([(25, 1.25), (25, -1.25)], centre, turn)
        canvas.shade([centre + ray * 0.5, *rim], (40, 110, 60), 0.35, clip=clip)
    canvas.shade(ellipse(np.add(centre, (-side, 0)), 12.5, 20), (16, 26, 34), 1, 0.5, clip)
    canvas.shade(np.vstack([upper, np.add(upper[::-1], (0, 11))]) * [side, 1] + centre, (20, 40, 50), 0.55, 1.5, clip)
    for (x, y), radius in (((-9, -9), 6.6), ((8, 9), 3.4), ((12, -4), 1.8)):
        canvas.fill(ellipse(np.add(centre, (x, y)), radius, radius * 1.1), (255, 255, 255))
    canvas.stroke((upper * [side, 1] + centre)[::6], 5, (58, 28, 34), taper=(0.5, 0.7), num_points=60)
    canvas.stroke((lower * [side, 1] + centre)[::6], 2.6, (90, 46, 40), taper=(0.7, 0.6), num_points=60)
    canvas.stroke(np.array([(-26, 9), (-31, 17)]) * [side, 1] + centre, 3.4, (58, 28, 34), taper=(1, 0))


def draw_nose_and_whiskers(canvas):
    nose = spline([(256, 236), (267, 233), (268, 238), (256, 248), (244, 238), (245, 233)], 60, closed=True)
    canvas.fill(place((nose - [256, 240]) * 1.12, (256, 240)), (150, 62, 70))
    canvas.fill(nose, (244, 134, 140))
    canvas.fill(ellipse((252, 237), 3.4, 1.5), (255, 206, 206))
    canvas.stroke([(256, 248), (256, 256)], 2, FUR_LINE, taper=(1, 1), num_points=4)
    for side in (-1, 1):
        canvas.stroke(
            [(256, 256), (256 + side * 8, 263), (256 + side * 18, 262), (256 + side * 24, 255)],
            2.4,
            FUR_LINE,
            taper=(1, 0),
        )
        canvas.shade(ellipse((256 + side * 78, 244), 15, 9), (255, 120, 110), 0.4, 5)
        for row in range(3):
            for column in range(2):
                canvas.fill(
                    ellipse((256 + side * (22 + 8 * column), 246 + 5.5 * row), 1, 1, num_points=10), FUR_LINE, 0.6
                )
            start = (256 + side * 36, 246 + 6 * row)
            canvas.stroke(
                [start, (256 + side * 90, 240 + 12 * row), (256 + side * 142, 246 + 20 * row)],
                1.5,
                (255, 255, 250),
                0.95,
                taper=(1, 0),
            )


def draw_head(canvas, generator):
    for side in (-1, 1):
        draw_ear(canvas, side, generator)
    outline = spline(HEAD, 160, closed=True)
    mask = canvas.mask(outline)
    paint_head(canvas, mask)
    draw_stripes(canvas, mask)
    draw_fur(canvas, mask, lambda point: point - [256, 236] + [0, -6], generator, 3400, 9, 0.13)
    forehead = outline[(outline[:, 1] < 140) & (np.abs(outline[:, 0] - 256) < 30)]
    canvas.stroke(forehead[np.argsort(forehead[:, 0])][::3], 2, FUR_LINE, 0.6, taper=(0, 0))
    start = np.argmax(outline[:, 1] > 168)
    end = len(outline) - np.argmax(outline[::-1, 1] > 168)
    canvas.stroke(outline[start:end:4], 2.2, FUR_LINE, 0.85, taper=(0.2, 0.2), num_points=240)
    for side in (-1, 1):
        for y, reach in ((226, 112), (238, 110), (250, 98), (260, 84)):
            tuft = [
                (256 + side * (reach - 14), y - 8),
                (256 + side * (reach + 11), y + 6),
                (256 + side * (reach - 18), y + 8),
            ]
            canvas.fill(tuft, (250, 178, 104) if side < 0 else (216, 128, 84))
            canvas.stroke(tuft[:2], 1.4, FUR_LINE, 0.7, taper=(0, 0.4), num_points=8)
        draw_cat_eye(canvas, side)
    draw_nose_and_whiskers(canvas)


def draw_collar(canvas):
    line = spline([(196, 272), (224, 290), (256, 296), (288, 290), (316, 272)], 60)
    outline = canvas.ribbon(
        line, np.full(60, 6.5), lambda _, along, across: mix((232, 56, 78), (130, 20, 60), 0.5 + 0.5 * -across)
    )
    canvas.stroke(outline[:60:6], 1.6, (96, 16, 44), taper=(1, 1))
    canvas.stroke(outline[60::6], 1.6, (96, 16, 44), taper=(1, 1))
    for step in range(9):
        tone = mix((160, 96, 24), (255, 236, 140), step / 8)
        canvas.fill(ellipse((256 - 0.6 * step, 309 - 0.6 * step), 13.5 - 1.45 * step, 13.5 - 1.45 * step), tone)
    canvas.stroke([(243, 311), (256, 314), (269, 311)], 2, (110, 60, 20), taper=(1, 1))
    canvas.fill(ellipse((256, 317), 2.4, 2.4), (80, 40, 20))


def draw_cat(canvas, generator):
    draw_tail(canvas, generator)
    draw_body(canvas, generator)
    draw_collar(canvas)
    draw_head(canvas, generator)
