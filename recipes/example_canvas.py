"""A small supersampled canvas for `draw_examples.py`: splines, tapered strokes, shaded ribbons, glows and noise.

Coordinates are pixels of the finished picture, x to the right and y down; colours are RGB, 0-255. Everything is
drawn `SUPERSAMPLING` times larger and reduced with LANCZOS at the end, so that every edge is antialiased.
"""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter
from scipy.interpolate import CubicSpline
from scipy.ndimage import zoom

SUPERSAMPLING = 4


def spline(points, num_points=60, closed=False):
    """A smooth curve through `points`, as an array of (x, y)."""
    points = np.asarray(points, dtype=float)
    if closed:
        points = np.vstack([points, points[:1]])
    steps = np.sqrt(np.linalg.norm(np.diff(points, axis=0), axis=1))
    knots = np.concatenate([[0.0], np.cumsum(steps)])
    curve = CubicSpline(knots, points, bc_type="periodic" if closed else "natural")
    return curve(np.linspace(0.0, knots[-1], num_points))


def ellipse(centre, radius_x, radius_y, angle=0.0, num_points=48):
    turn = np.linspace(0.0, 2 * math.pi, num_points, endpoint=False)
    return place(np.stack([radius_x * np.cos(turn), radius_y * np.sin(turn)], axis=1), centre, angle)


def place(points, centre, angle=0.0, scale=1.0):
    """Scale, turn (radians) and move points drawn around the origin."""
    cosine, sine = math.cos(angle), math.sin(angle)
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray(points, dtype=float) * scale @ rotation + np.asarray(centre, dtype=float)


def normals(line):
    tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    return np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)


def mix(first, second, amount):
    """Blend two colours (or arrays of colours); `amount` 0 gives the first."""
    amount = np.asarray(amount, dtype=float)[..., None]
    return np.asarray(first, dtype=float) * (1 - amount) + np.asarray(second, dtype=float) * amount


def colour_ramp(positions, stops):
    """Colours along a ramp. `stops` is a list of (position, colour); returns positions.shape + (3,)."""
    places = [place_ for place_, _ in stops]
    channels = [np.interp(positions, places, [colour[channel] for _, colour in stops]) for channel in range(3)]
    return np.stack(channels, axis=-1)


def smoothstep(values, low, high):
    ramp = np.clip((values - low) / (high - low), 0.0, 1.0)
    return ramp * ramp * (3 - 2 * ramp)


def shift_down(values, rows):
    """The array moved down by some rows, its first row repeated."""
    return np.concatenate([np.repeat(values[:1], rows, axis=0), values[:-rows]])


def fractal_noise(height, width, cell_height, cell_width, generator, octaves=5, persistence=0.55):
    """Smooth noise in 0..1, (height, width); a cell is the size in pixels of the coarsest bump."""
    total, amplitude = np.zeros((height, width)), 1.0
    for octave in range(octaves):
        rows = max(2, math.ceil(height * 2**octave / cell_height) + 1)
        columns = max(2, math.ceil(width * 2**octave / cell_width) + 1)
        grid = generator.random((min(rows, height), min(columns, width)))
        layer = zoom(grid, (height / grid.shape[0], width / grid.shape[1]), order=3, mode="nearest", grid_mode=True)
        total += amplitude * layer[:height, :width]
        amplitude *= persistence
    return (total - total.min()) / (total.max() - total.min())


def rgb(colour):
    return tuple(round(min(255.0, max(0.0, float(value)))) for value in colour)


class Canvas:
    """A picture being painted; `pose` tilts everything drawn after it."""

    def __init__(self, width, height, supersampling=SUPERSAMPLING):
        self.width, self.height, self.supersampling = width, height, supersampling
        self.size = (width * supersampling, height * supersampling)
        self.pose_angle, self.pose_centre = 0.0, (0.0, 0.0)
        self.set_image(Image.new("RGB", self.size))

    def set_image(self, image):
        self.image = image
        self.pen = ImageDraw.Draw(image, "RGBA")

    def pose(self, angle=0.0, centre=(0.0, 0.0)):
        self.pose_angle, self.pose_centre = angle, centre

    def to_pixels(self, points):
        points = np.asarray(points, dtype=float)
        if self.pose_angle:
            points = place(points - np.asarray(self.pose_centre), self.pose_centre, self.pose_angle)
        return [tuple(point) for point in (points * self.supersampling).tolist()]

    def grid(self):
        """x and y of a coarse sample grid, one sample a finished pixel: (height, width) each."""
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(float)
        return x, y

    def enlarge(self, values):
        """An image of the canvas's size from an array of finished-pixel size, (height, width[, 3])."""
        image = Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))
        return image.resize(self.size, Image.Resampling.BICUBIC)

    def mask(self, points, blur=0.0):
        mask = Image.new("L", self.size)
        ImageDraw.Draw(mask).polygon(self.to_pixels(points), fill=255)
        return mask.filter(ImageFilter.GaussianBlur(blur * self.supersampling)) if blur else mask

    def paint(self, mask, colour, opacity=1.0, clip=None):
        """Paint a colour, or a whole image, through a mask."""
        if clip is not None:
            mask = ImageChops.multiply(mask, clip)
        if opacity < 1:
            mask = mask.point(lambda value: value * opacity)
        box = mask.getbbox()
        if box:
            source = colour.crop(box) if isinstance(colour, Image.Image) else rgb(colour)
            self.image.paste(source, box, mask.crop(box))

    def fill(self, points, colour, opacity=1.0):
        self.pen.polygon(self.to_pixels(points), fill=(*rgb(colour), round(255 * opacity)))

    def shade(self, points, colour, opacity=1.0, blur=0.0, clip=None):
        self.paint(self.mask(points, blur), colour, opacity, clip)

    def stroke(self, points, width, colour, opacity=1.0, taper=(0.0, 0.0), num_points=40):
        """A smooth line, thickest in the middle; `taper` is the relative width at its start and its end."""
        line = spline(points, num_points) if len(points) > 2 else np.linspace(points[0], points[1], num_points)
        along = np.linspace(0.0, 1.0, len(line))
        ends = np.interp(along, [0.0, 1.0], taper)
        half = 0.5 * width * (ends + (1 - ends) * np.sin(math.pi * along) ** 0.7)[:, None]
        side = normals(line) * half
        self.fill(np.vstack([line + side, (line - side)[::-1]]), colour, opacity)

    def ribbon(self, line, half_widths, colours, num_across=14):
        """A shaded band along `line`. `colours(points, along, across)` gives a colour for each cell, along in 0..1
        and across in -1..1."""
        side = normals(line) * np.asarray(half_widths)[:, None]
        across = np.linspace(-1.0, 1.0, num_across + 1)
        mesh = line[:, None] + side[:, None] * across[None, :, None]  # (length, across + 1, 2)
        centres = (mesh[:-1, :-1] + mesh[1:, 1:]) / 2
        along = np.linspace(0.0, 1.0, len(centres))[:, None].repeat(num_across, axis=1)
        middle = ((across[:-1] + across[1:]) / 2)[None].repeat(len(centres), axis=0)
        cells = np.clip(colours(centres, along, middle), 0, 255).round().astype(int)
        pixels = np.array(self.to_pixels(mesh.reshape(-1, 2))).reshape(mesh.shape)
        for row in range(len(centres)):
            for column in range(num_across):
                quad = pixels[[row, row + 1, row + 1, row], [column, column, column + 1, column + 1]]
                self.pen.polygon(quad.ravel().tolist(), fill=tuple(cells[row, column].tolist()))
        return np.vstack([mesh[:, 0], mesh[::-1, -1]])

    def glow(self, centre, radius, colour, strength=1.0, power=2.0):
        """Add light around a point, fading to nothing at `radius` pixels."""
        (x, y), reach = self.to_pixels([centre])[0], radius * self.supersampling
        box = (max(0, int(x - reach)), max(0, int(y - reach)), int(x + reach), int(y + reach))
        box = (box[0], box[1], min(self.size[0], box[2]), min(self.size[1], box[3]))
        if box[0] >= box[2] or box[1] >= box[3]:
            return
        rows, columns = np.mgrid[box[1] : box[3], box[0] : box[2]]
        fall = np.clip(1 - np.hypot(columns - x, rows - y) / reach, 0, 1) ** power * strength
        light = Image.fromarray((fall[..., None] * np.asarray(colour)).clip(0, 255).astype(np.uint8))
        self.image.paste(ImageChops.screen(self.image.crop(box), light), box)

    def blur(self, radius):
        self.set_image(self.image.filter(ImageFilter.GaussianBlur(radius * self.supersampling)))

    def finish(self, generator, grain=1.2, warmth=(1.0, 1.0, 1.0)):
        """The finished picture: reduced, colour-balanced, with a breath of paper grain against banding."""
        small = self.image.resize((self.width, self.height), Image.Resampling.LANCZOS)
        pixels = np.asarray(small, dtype=float) * np.asarray(warmth)
        pixels += generator.normal(0.0, grain, (self.height, self.width, 1))
        return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
