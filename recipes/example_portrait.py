"""Picture 1 of `draw_examples.py`: a girl in a patterned kimono under cherry blossom."""

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from recipes.example_canvas import Canvas, colour_ramp, ellipse, fractal_noise, mix, normals, smoothstep, spline
from recipes.example_plants import draw_blossom, draw_branch, draw_loose_petal

SKIN, SKIN_SHADOW, SKIN_LINE = (255, 233, 220), (240, 186, 178), (150, 70, 80)
HAIR_RAMP = [
    (40, (58, 56, 122)),
    (190, (66, 68, 150)),
    (330, (104, 86, 178)),
    (430, (168, 110, 190)),
    (512, (226, 138, 186)),
]
HAIR_LINE, HAIR_LIGHT = (28, 24, 62), (176, 196, 255)
BLOSSOM = ((255, 240, 244), (250, 160, 186), (206, 96, 132))
BLOSSOMS = [
    BLOSSOM,
    ((255, 222, 232), (244, 130, 168), (186, 74, 116)),
    ((255, 204, 220), (232, 104, 150), (170, 58, 104)),
]
TILT, NECK = -0.07, (256.0, 350.0)
HAIR_MASS = [(150, 200), (162, 104), (202, 66), (256, 56), (310, 66), (350, 104), (362, 200), (392, 330), (412, 520),
             (256, 540), (100, 520), (120, 330)]  # fmt: skip
FAN = [(18, (250, 206, 132), 1), (16.8, (188, 46, 76), 1), (12.5, (250, 206, 132), 0.8), (11.3, (202, 58, 84), 1),
       (7.5, (250, 206, 132), 0.8), (6.3, (218, 84, 96), 1)]  # fmt: skip
PRINTED_FLOWERS = [(112, 470, 25), (172, 492, 19), (146, 428, 15), (398, 470, 25), (352, 496, 18), (372, 430, 15),
                   (84, 505, 16), (432, 508, 17)]  # fmt: skip
FOLDS = [[(132, 408), (150, 450), (140, 530)], [(380, 408), (362, 450), (372, 530)],
         [(86, 450), (98, 490), (92, 530)], [(426, 450), (414, 490), (420, 530)]]  # fmt: skip
FACE = [(150, 190), (151, 240), (160, 278), (184, 310), (218, 335), (246, 349), (256, 351), (266, 349), (294, 335),
        (328, 310), (352, 278), (361, 240), (362, 190), (336, 120), (256, 95), (176, 120)]  # fmt: skip
BANG_TIPS = [(158, 246), (180, 232), (205, 212), (229, 224), (250, 203), (272, 226), (300, 208), (327, 222), (352, 242)]


def draw_sky(canvas, generator):
    x, y = canvas.grid()
    sky = colour_ramp(y, [(0, (126, 182, 236)), (260, (196, 222, 250)), (512, (255, 224, 228))])
    cloud = fractal_noise(canvas.height, canvas.width, 150, 260, generator, 6)
    sky = mix(sky, (255, 255, 255), 0.85 * smoothstep(cloud, 0.48, 0.75))
    clump = fractal_noise(canvas.height, canvas.width, 110, 110, generator, 6, 0.6)
    reach = np.abs(x - 256) / 256 * 0.30 + (256 - y) / 512 * 0.10
    tone = fractal_noise(canvas.height, canvas.width, 40, 40, generator, 5, 0.7)
    foliage = colour_ramp(tone, [(0.2, (226, 128, 164)), (0.5, (248, 182, 204)), (0.8, (255, 226, 234))])
    sky = mix(sky, foliage, 0.9 * smoothstep(clump + reach, 0.60, 0.74))
    canvas.set_image(canvas.enlarge(sky))


def draw_blossoms_behind(canvas, generator):
    spots = []
    for start, angle, length in (((-20, 60), 0.35, 230), ((540, 30), 2.75, 240), ((-15, 300), -0.5, 150),
                                 ((530, 330), 3.7, 150), ((-10, 470), -0.7, 110), ((524, 486), 3.75, 110)):  # fmt: skip
        spots += draw_branch(canvas, np.array(start), angle, length, 13, generator, ((84, 50, 62), (150, 98, 100)), 2)
    for spot in spots:
        for _ in range(2):
            place_ = np.asarray(spot) + generator.normal(0, 11, 2)
            draw_blossom(canvas, place_, generator.uniform(7, 12), generator.uniform(0, 6),
                         BLOSSOMS[generator.integers(3)], generator.uniform(0.5, 1))  # fmt: skip
    canvas.blur(0.9)
    for _ in range(26):
        centre = generator.uniform(0, 512, 2)
        canvas.glow(centre, generator.uniform(10, 30), (255, 226, 232), generator.uniform(0.15, 0.4), 0.5)
    for index in range(0, len(spots), 3):
        centre = np.asarray(spots[index]) + generator.normal(0, 16, 2)
        canvas.shade(ellipse(np.add(centre, (2, 5)), 14, 12), (170, 60, 110), 0.3, 3)
        draw_blossom(canvas, centre, generator.uniform(11, 20), generator.uniform(0, 6),
                     BLOSSOMS[generator.choice(3, p=[0.5, 0.3, 0.2])], generator.uniform(0.65, 1))  # fmt: skip


def hair_shading(generator, ring=None, darkness=0.0):
    """Colours for a lock: root to tip, a fine strand texture and, on the head, the ring of light."""
    strands = generator.normal(0, 0.06, 200)

    def shading(points, along, across):
        colours = colour_ramp(points[..., 1], HAIR_RAMP)
        strand = strands[((across + 1) * 40).astype(int)]
        colours = mix(colours, HAIR_LINE, np.clip(0.30 * np.abs(across) ** 2 + 0.10 * across + strand + darkness, 0, 1))
        if ring is not None:
            centre = ring + 0.0011 * (points[..., 0] - 256) ** 2 + 90 * strand
            band = smoothstep(np.abs(points[..., 1] - centre), 13, 5)
            colours = mix(colours, HAIR_LIGHT, 0.8 * band * (1 - 0.5 * across**2))
        return colours

    return shading


def draw_lock(canvas, points, width, generator, ring=None, darkness=0.0, line_width=1.7, root=0.5):
    """A lock of hair from root to tip; returns its outline."""
    line = spline(points, 70)
    along = np.linspace(0, 1, 70)
    half = 0.5 * width * (root + (1 - root) * np.sin(math.pi * np.minimum(along * 1.1, 1))) * (1 - along**3.2)
    outline = canvas.ribbon(line, half, hair_shading(generator, ring, darkness), num_across=16)
    for sign in (slice(0, 70), slice(70, 140)):
        canvas.stroke(outline[sign][::6], line_width, HAIR_LINE, 0.9, taper=(0.3, 0.3), num_points=70)
    for _ in range(4):
        across, start = generator.uniform(-0.6, 0.6), generator.integers(8, 30)
        strand = (outline[:70] * (0.5 - across / 2) + outline[70:][::-1] * (0.5 + across / 2))[start : start + 36]
        canvas.stroke(strand[::5], 0.9, HAIR_LINE if across > -0.2 else HAIR_LIGHT, 0.45, num_points=30)
    return outline


def draw_back_hair(canvas, generator):
    canvas.fill(spline(HAIR_MASS, 120, closed=True), HAIR_LINE)
    for layer in range(3):
        for side in (-1, 1):
            for index in range(6, -1, -1):
                drift = 84 + 12 * index - 9 * layer + generator.normal(0, 5)
                wave = generator.normal(0, 9)
                points = [(256 + side * (40 + 4 * index), 88 + 4 * index), (256 + side * (94 + 3 * index), 190),
                          (256 + side * (drift + 14 + wave), 320), (256 + side * (drift + 8 - wave), 420),
                          (256 + side * (drift + 34 + wave), 505 + generator.uniform(-40, 60))]  # fmt: skip
                draw_lock(canvas, points, 40, generator, darkness=0.22 - 0.11 * layer)


def kimono_mask(canvas):
    left = spline([(236, 366), (196, 384), (140, 404), (96, 432), (66, 480), (50, 530)], 50)
    return canvas.mask(np.vstack([left, (left * [-1, 1] + [512, 0])[::-1]]))


def draw_waves(canvas, clip):
    """The seigaiha pattern: overlapping fans in rows, back rows first."""
    layer = Canvas(canvas.width, canvas.height, canvas.supersampling)
    x, y = canvas.grid()
    layer.set_image(
        canvas.enlarge(colour_ramp(y + 0.25 * np.abs(x - 256), [(380, (206, 58, 82)), (580, (122, 26, 66))]))
    )
    for row, height in enumerate(np.arange(366, 560, 9)):
        for x in np.arange(30 + 18 * (row % 2), 500, 36):
            for radius, colour, opacity in FAN:
                layer.fill(ellipse((x, height), radius, radius, num_points=36), colour, opacity)
    for x, height, size in PRINTED_FLOWERS:
        draw_blossom(layer, np.array([x, height]), size, x, ((255, 250, 244), (255, 196, 190), (150, 36, 70)))
    canvas.paint(clip, layer.image)


def draw_kimono(canvas):
    mask = kimono_mask(canvas)
    draw_waves(canvas, mask)
    for fold in FOLDS:
        line = spline(fold, 30)
        canvas.shade(np.vstack([line, (np.add(line, (15, 3)))[::-1]]), (70, 10, 56), 0.32, 3.5, mask)
        canvas.stroke(fold, 2.2, (70, 10, 50), 0.8)
    outline = spline([(196, 384), (140, 404), (96, 432), (66, 480), (50, 530)], 50)
    canvas.stroke(outline[::7], 3, (72, 14, 46), taper=(1, 1))
    canvas.stroke((outline * [-1, 1] + [512, 0])[::7], 3, (72, 14, 46), taper=(1, 1))


def draw_collar(canvas, side, inner):
    """One overlapping band of the collar, from the nape to below the breast."""

    def flip(points):
        return [(256 + side * (x - 256), y) for x, y in points]

    def shaded(light, dark):
        return lambda points, along, across: mix(light, dark, 0.5 + 0.5 * side * across)

    line = spline(flip([(282, 322), (306, 362), (298, 402), (264, 454), (220, 530)]), 60)
    if inner:
        canvas.ribbon(np.add(line, (-side * 8, 0)), np.full(60, 12.0), shaded((255, 252, 250), (206, 190, 220)))
    band = np.add(line, (side * 8, 0))
    outline = canvas.ribbon(band, np.full(60, 13.0), shaded((78, 74, 156), (40, 34, 92)))
    for half in (outline[:60], outline[60:]):
        canvas.stroke(half[::7], 2.2, (36, 20, 60), taper=(1, 1))
    for reach in (-9.5, 9.5):
        canvas.stroke((band + normals(band) * reach)[::7], 1.2, (240, 200, 126), 0.9, taper=(1, 1))
    for index in range(8, 60, 5):
        draw_blossom(canvas, band[index], 5.6, index, ((255, 236, 190), (240, 176, 96), (150, 84, 40)), is_simple=True)


def draw_neck(canvas):
    neck = [(222, 310), (223, 352), (206, 380), (200, 400), (256, 470), (312, 400), (306, 380), (289, 352), (290, 310)]
    mask = canvas.mask(neck)
    canvas.paint(mask, SKIN)
    shadow = spline(np.add(FACE, (3, 22)), 120, closed=True)
    canvas.shade(shadow, SKIN_SHADOW, 1, 0, mask)
    canvas.shade(shadow - [0, 12], (222, 150, 156), 0.6, 3, mask)
    for side in (-1, 1):
        canvas.stroke([(256 + side * 33, 335), (256 + side * 34, 356), (256 + side * 49, 380)], 2, SKIN_LINE, 0.9)
        canvas.stroke([(256 + side * 10, 412), (256 + side * 24, 402), (256 + side * 36, 400)], 1.6, SKIN_LINE, 0.6)


def draw_face(canvas, bang_outlines):
    outline = spline(FACE, 160, closed=True)
    mask = canvas.mask(outline)
    canvas.paint(mask, SKIN)
    for side in (-1, 1):
        canvas.shade(ellipse((256 + side * 96, 262), 24, 70), SKIN_SHADOW, 0.55, 9, mask)
        canvas.shade(ellipse((256 + side * 66, 286), 25, 13), (255, 132, 138), 0.55, 7, mask)
        for offset in (-7, 0, 7):
            start = (256 + side * 66 + offset + 2, 281)
            canvas.stroke([start, (start[0] - 4, 289)], 1.2, (232, 96, 110), 0.55, num_points=8)
    for bang in bang_outlines:
        canvas.shade(np.add(bang, (3, 11)), SKIN_SHADOW, 1, 0.4, mask)
    canvas.stroke(spline(FACE[:13], 90)[::6], 2.4, SKIN_LINE, taper=(0.4, 0.4), num_points=120)
    canvas.stroke([(254, 281), (251, 288), (256, 291)], 2, SKIN_LINE, 0.85)
    canvas.shade(ellipse((258, 284), 3, 5), (255, 255, 255), 0.7, 1.2, mask)
    canvas.fill(spline([(240, 312), (256, 315.5), (272, 311), (264, 320), (256, 322.5), (248, 320)], 60, closed=True),
                (196, 70, 86))  # fmt: skip
    canvas.fill(ellipse((256, 320), 6, 2.4), (248, 146, 150))
    canvas.stroke([(236, 310.5), (246, 313), (256, 314), (266, 313), (277, 309.5)], 2.4, (130, 44, 62))
    canvas.stroke([(249, 328), (256, 329.5), (263, 328)], 1.8, (220, 140, 140), 0.9)


def draw_iris(canvas, centre, clip):
    _, y = canvas.grid()
    ramp = colour_ramp(
        y - centre[1], [(-30, (14, 34, 78)), (-8, (22, 104, 150)), (12, (46, 186, 196)), (32, (176, 250, 226))]
    )
    iris = ellipse(centre, 24, 31)
    canvas.shade(iris, (12, 30, 66), 1, 0.3, clip)
    canvas.shade(ellipse(centre, 21.8, 28.8), canvas.enlarge(ramp), 1, 0.3, clip)
    inside = ImageChops.multiply(clip, canvas.mask(ellipse(centre, 21, 28)))
    canvas.shade(ellipse((centre[0], centre[1] + 17), 14, 9), (214, 255, 236), 0.75, 3, inside)
    rays = Image.new("L", canvas.size)
    for turn in np.linspace(0, 2 * math.pi, 44, endpoint=False):
        ray = np.array([math.cos(turn) * 20, math.sin(turn) * 27])
        side = np.array([-math.sin(turn), math.cos(turn)]) * 0.6
        rays = ImageChops.lighter(rays, canvas.mask([centre + ray * 0.5, centre + ray + side, centre + ray - side]))
    canvas.paint(rays, (12, 70, 110), 0.42, inside)
    canvas.shade(ellipse((centre[0], centre[1] - 2), 9.5, 13.5), (8, 20, 50), 0.95, 0.5, inside)
    canvas.shade(ellipse((centre[0], centre[1] - 30), 30, 19), (6, 14, 48), 0.62, 1.5, inside)


def draw_eye(canvas, side):
    """An eye in coordinates where the nose is at negative x; `side` mirrors it."""
    origin = np.array([256 + side * 57, 243.0])

    def at(points):
        return np.asarray(points, dtype=float) * [side, 1] + origin

    upper = spline([(-29, 9), (-20, -19), (2, -30), (22, -22), (33, -3)], 40)
    lower = spline([(33, -3), (26, 20), (4, 31), (-18, 26), (-29, 9)], 40)
    white = at(np.vstack([upper, lower]))
    clip = canvas.mask(white)
    canvas.paint(clip, (255, 252, 252))
    draw_iris(canvas, at([(1, 1)])[0], clip)
    canvas.shade(at(np.vstack([upper, np.add(upper[::-1], (0, 10))])), (112, 100, 158), 0.55, 1, clip)
    for (x, y), radius_x, radius_y in (((-9, -13), 8, 9.5), ((10, 17), 4.4, 5), ((12, -6), 2.2, 2.6)):
        canvas.fill(ellipse(np.add(origin, (x, y)), radius_x, radius_y, 0.3), (255, 255, 255))
    lash = [(-33, 11), (-22, -23), (2, -37), (26, -28), (38, -9), (46, -13)]
    back = [(46, -13), (36, -1), (31, -3), (20, -20), (2, -29.5), (-19, -17), (-33, 11)]
    canvas.fill(at(np.vstack([spline(lash, 50), spline(back, 50)])), (34, 20, 50))
    for start, tip in (((28, -24), (45, -27)), ((33, -14), (50, -20)), ((18, -32), (32, -38)), ((35, -2), (43, 0))):
        canvas.fill(at([np.array(start) - [5, 3], tip, np.add(start, (1, 6))]), (34, 20, 50))
    canvas.stroke(at([(30, 8), (24, 23), (8, 31.5), (-8, 31)]), 2.2, (96, 44, 66))
    canvas.stroke(at([(-25, -27), (-4, -43), (18, -41), (36, -27)]), 1.8, SKIN_LINE, 0.8)
    canvas.stroke(at([(-27, -57), (2, -67), (36, -57)]), 4.6, (44, 38, 88), 0.95, taper=(0.5, 0))


def bang_points(tip):
    offset = tip[0] - 256
    return [(264 + offset * 0.14, 62 + abs(offset) * 0.06), (262 + offset * 0.70, 98 + abs(offset) * 0.16),
            (260 + offset * 1.07, 158), (tip[0] - 5 - np.sign(offset + 1) * 4, tip[1])]  # fmt: skip


def draw_front_hair(canvas, seed):
    """Cap, side locks and bangs; returns the outlines of the bangs (drawn twice: the first time for their shadow)."""
    generator = np.random.default_rng(seed)
    for side in (-1, 1):
        for width, reach, length in ((46, 104, 420), (40, 112, 400), (30, 100, 448), (22, 92, 372)):
            points = [(256 + side * 34, 70), (256 + side * (reach - 14), 120), (256 + side * (reach + 2), 226),
                      (256 + side * (reach - 8), 316), (256 + side * (reach + 10), length)]  # fmt: skip
            draw_lock(canvas, points, width, generator, ring=118, root=0.15)
    order = sorted(range(len(BANG_TIPS)), key=lambda index: -abs(BANG_TIPS[index][0] - 250))
    order = order[::2] + order[1::2]
    return [draw_lock(canvas, bang_points(BANG_TIPS[index]), 47, generator, ring=118, root=0.42) for index in order]


def draw_ahoge(canvas, generator):
    for points, width in (([(270, 66), (256, 36), (226, 26), (198, 44)], 12), ([(276, 64), (290, 46), (312, 44)], 6)):
        draw_lock(canvas, points, width, generator, line_width=1.4)


def draw_ornament(canvas):
    for x, y, size, turn in ((158, 150, 24, 0.2), (180, 122, 17, 0.9), (143, 184, 16, 0.5)):
        canvas.shade(ellipse((x + 3, y + 5), size, size * 0.9), HAIR_LINE, 0.55, 3)
        draw_blossom(canvas, np.array([x, y]), size, turn, ((255, 236, 232), (255, 122, 140), (176, 40, 76)))
    for index, (x, length) in enumerate(((134, 48), (142, 62), (150, 52))):
        for bead in range(length // 8):
            centre = (x + 1.5 * math.sin(bead), 204 + 8 * bead)
            canvas.fill(ellipse(centre, 3.4, 4, num_points=16), (206, 150, 70))
            canvas.fill(
                ellipse(centre, 2.6, 3.2, num_points=16), ((255, 214, 128), (255, 150, 160))[(bead + index) % 2]
            )
            canvas.fill(ellipse((centre[0] - 0.8, centre[1] - 1), 0.9, 1, num_points=8), (255, 255, 255))


def draw_falling_petals(canvas, generator):
    for index in range(46):
        centre = generator.uniform((0, 60), (512, 512))
        if abs(centre[0] - 250) < 92 and 150 < centre[1] < 360:
            continue
        size = generator.uniform(8, 13) if index % 5 else generator.uniform(15, 20)
        draw_loose_petal(canvas, centre, size, generator.uniform(0, 6), BLOSSOM, generator.uniform(0.4, 0.9))


def add_bloom(canvas):
    """Let the bright parts bleed a little light, and the sun come in from the upper right."""
    soft = canvas.image.filter(ImageFilter.GaussianBlur(9 * canvas.supersampling))
    bright = soft.point(lambda value: max(0, value - 150) * 0.45)
    canvas.set_image(ImageChops.screen(canvas.image, bright))
    canvas.glow((500, 10), 420, (255, 214, 170), 0.42, 1.6)


def draw_portrait(seed):
    generator = np.random.default_rng(seed)
    canvas = Canvas(512, 512)
    draw_sky(canvas, generator)
    draw_blossoms_behind(canvas, generator)
    canvas.pose(TILT, NECK)
    draw_back_hair(canvas, generator)
    canvas.pose()
    draw_kimono(canvas)
    draw_neck(canvas)
    for side, inner in ((-1, True), (1, True)):
        draw_collar(canvas, side, inner)
    canvas.pose(TILT, NECK)
    bangs = draw_front_hair(canvas, seed)
    draw_face(canvas, bangs)
    for side in (-1, 1):
        draw_eye(canvas, side)
    draw_front_hair(canvas, seed)
    draw_ahoge(canvas, generator)
    draw_ornament(canvas)
    canvas.pose()
    draw_falling_petals(canvas, generator)
    add_bloom(canvas)
    return canvas.finish(generator)
