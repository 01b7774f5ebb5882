"""Loops of the dense CRF, in the part of Python that numba compiles.

Only :mod:`brnf.segment.compiled` imports this module, when no machine code is kept for this
processor. All arguments that are no numbers are pointers to the first of the values of an array
in C order; their lengths are the caller's business (:mod:`brnf.segment.lattice`,
:mod:`brnf.segment.crf`). Every operation rounds as IEEE 754 says, in the order written here, so
that all processors give the same bits.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba.extending import register_jitable

__all__ = ["KERNELS"]

Kernel: TypeAlias = Callable[..., Any]
Pointer: TypeAlias = Any
"""Pointer to float32, int32, int64 or uint8, as ``compiled.SIGNATURES`` says."""
Count: TypeAlias = Any
"""An int64."""
Value: TypeAlias = Any
"""A float32."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the product spreads neighbouring keys over the upper bits."""
LEAST_EXPONENT = np.float32(-69.0)
"""e^-69 = 1e-30 counts as 0: products with it would leave the normal numbers, which is slow."""
PER_LN2 = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
"""ln 2 in two parts: multiples of the first up to 2^15 are exact."""
HALF, ZERO, ONE = np.float32(0.5), np.float32(0), np.float32(1)
PLANE = 2
"""Axes of a feature before the colours: column and row."""


def _inlined(function: Kernel) -> Kernel:
    """Let kernels call a function at no cost."""
    inlined: Kernel = register_jitable(forceinline=True)(function)
    return inlined


@_inlined
def _slot(key: Count, bits: Count, keys: Pointer, table: Pointer) -> Count:
    """Return the place of a key in the table of 2^bits places, or the free one where it belongs."""
    mask = (np.int64(1) << np.int64(bits)) - np.int64(1)
    place = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(64 - bits))
    while table[place] != 0 and keys[table[place] - 1] != key:
        place = (place + np.int64(1)) & mask
    return place


def _enter(count: Count, bits: Count, keys: Pointer, table: Pointer) -> None:
    """Fill an empty table: the index of each of ``count`` keys, plus one, goes to its place."""
    for index in range(count):
        table[_slot(keys[index], bits, keys, table)] = np.int32(index + 1)


@_inlined
def _elevate(axes: Count, features: Pointer, elevated: Pointer) -> None:
    """Map a scaled feature [axes] into the plane of [axes + 1] coordinates that add up to 0."""
    total = ZERO
    for step in range(axes):
        axis = axes - step
        feature = features[axis - 1]
        elevated[axis] = total - np.float32(axis) * feature
        total += feature
    elevated[0] = total


@_inlined
def _enclose(axes: Count, elevated: Pointer, rest: Pointer, cell: Pointer, order: Pointer) -> None:
    """Find the simplex around an elevated point.

    Arguments:
        axes: d.
        elevated: [d + 1] the point.
        rest: [d + 1], gets the point minus corner 0, over d + 1, largest first.
        cell: [2 (d + 1)], gets corner 0, over d + 1; its second half is scratch.
        order: [d + 1], gets the coordinates in the order of ``rest``.
    """
    corners = axes + 1
    part = np.float32(1 / corners)
    excess = np.int32(0)
    for i in range(corners):
        nearest = np.rint(elevated[i] * part)
        rest[i] = elevated[i] - nearest * np.float32(corners)
        cell[i] = np.int32(nearest)
        excess += np.int32(nearest)
        cell[corners + i] = 0
    for i in range(corners):
        for j in range(i + 1, corners):
            later = np.int32(rest[i] < rest[j])
            cell[corners + i] += later
            cell[corners + j] += np.int32(1) - later
    for i in range(corners):
        rank = cell[corners + i] + excess
        if rank < 0:
            rank += np.int32(corners)
            cell[i] += np.int32(1)
        elif rank >= corners:
            rank -= np.int32(corners)
            cell[i] -= np.int32(1)
        order[rank] = np.int32(i)
    for rank in range(corners):
        i = order[rank]
        rest[rank] = (elevated[i] - np.float32(cell[i] * corners)) * part


def _simplices(axes: int) -> Kernel:
    """Return the kernel that finds simplices of features with ``axes`` dimensions d."""
    corners = axes + 1

    def simplices(
        first: Count,
        pixels: Count,
        width: Count,
        image: Pointer,
        places: Pointer,
        colours: Pointer,
        strides: Pointer,
        origin: Count,
        room: Count,
        bits: Count,
        keys: Pointer,
        table: Pointer,
        known: Pointer,
        above: Pointer,
        offsets: Pointer,
        weights: Pointer,
        features: Pointer,
        elevated: Pointer,
        rest: Pointer,
        cell: Pointer,
        order: Pointer,
    ) -> Count:
        """Find the lattice points around every pixel and its weights there.

        Arguments:
            first: the pixel to go on with.
            pixels: N.
            width: of the image.
            image: [N, 3], read for five axes.
            places: [width + height] scaled columns, then rows.
            colours: [3, 256] scaled grey values.
            strides: [d + 1], what a coordinate counts in a key; the last is 0.
            origin: key of the point 0.
            room: keys that fit.
            bits: the table has 2^bits places.
            keys: [room], those of the points found.
            table: [2^bits], see ``_enter``.
            known: [1] number of points.
            above: [width, d + 1] keys of the last pixel in each column.
            offsets: [N, d + 1] indices of points.
            weights: [N, d + 1].
            features: [d] scratch; so are the following.
            elevated: [d + 1].
            rest: [d + 1].
            cell: [2 (d + 1)].
            order: [d + 1].

        Returns:
            the first pixel that is not done for want of room; N when all are done.
        """
        count = known[0]
        every = np.int64(0)
        for axis in range(axes):
            every += strides[axis]
        for pixel in range(first, pixels):
            if count + corners > room:
                known[0] = count
                return pixel
            column = pixel % width
            row = pixel // width
            features[0] = places[column]
            features[1] = places[width + row]
            for axis in range(PLANE, axes):
                channel = axis - PLANE
                features[axis] = colours[channel * 256 + np.int64(image[pixel * 3 + channel])]
            _elevate(axes, features, elevated)
            _enclose(axes, elevated, rest, cell, order)
            key = np.int64(origin)
            for axis in range(axes):
                key += np.int64(cell[axis]) * np.int64(corners) * strides[axis]
            weight = ONE + rest[axes] - rest[0]
            for corner in range(corners):
                if corner > 0:  # one more in all coordinates, d + 1 less in the next of the order
                    key += every - np.int64(corners) * strides[order[corners - corner]]
                    weight = rest[axes - corner] - rest[corners - corner]
                at = pixel * corners + corner
                seen = column * corners + corner
                # Most points are those of a neighbour, where no search is needed.
                if column > 0 and pixel > first and above[seen - corners] == key:
                    index = offsets[at - corners]
                elif row > 0 and above[seen] == key:
                    index = offsets[at - width * corners]
                else:
                    place = _slot(key, bits, keys, table)
                    index = table[place] - np.int32(1)
                    if index < 0:
                        index = np.int32(count)
                        keys[count] = key
                        count += np.int64(1)
                        table[place] = np.int32(count)
                above[seen] = key
                offsets[at] = index
                weights[at] = weight
        known[0] = count
        return pixels

    return simplices


def _chains(
    corners: Count,
    count: Count,
    steps: Pointer,
    bits: Count,
    keys: Pointer,
    table: Pointer,
    following: Pointer,
    led: Pointer,
    chains: Pointer,
) -> Count:
    """Line up the points along each direction; in it, those without neighbours are left out.

    Arguments:
        corners: directions, d + 1.
        count: M.
        steps: [d + 1], what a step in each direction adds to a key.
        bits: the table has 2^bits places.
        keys: [M].
        table: [2^bits], see ``_enter``.
        following: [M] scratch, index of the next point or -1.
        led: [M] scratch, whether there is one before.
        chains: [(d + 1) M] indices; the last one of a chain as its complement, below 0.

    Returns:
        how many indices were written.
    """
    written = np.int64(0)
    for direction in range(corners):
        for index in range(count):
            led[index] = 0
        for index in range(count):
            found = table[_slot(keys[index] + steps[direction], bits, keys, table)] - np.int32(1)
            following[index] = found
            if found >= 0:
                led[found] = 1
        for index in range(count):
            if following[index] >= 0 and led[index] == 0:
                point = np.int32(index)
                while following[point] >= 0:
                    chains[written] = point
                    written += np.int64(1)
                    point = following[point]
                chains[written] = ~point
                written += np.int64(1)
    return written


def _blur_one(length: Count, chains: Pointer, values: Pointer) -> None:
    """Add to each of the values [M] half of its two neighbours, one direction after the other."""
    at = np.int64(0)
    while at < length:
        point = np.int64(chains[at])
        before, here = ZERO, values[point]
        last: Any = False
        while not last:
            at += 1
            following = np.int64(chains[at])
            last = following < 0
            if last:
                following = ~following
            after = values[following]
            values[point] = here + HALF * (before + after)
            before, here, point = here, after, following
        values[point] = here + HALF * before
        at += 1


def _blur(length: Count, chains: Pointer, width: Count, values: Pointer) -> None:
    """Do as ``_blur_one`` for values [M, width], four channels at once: ``width`` is 4, 8, ..."""
    start = np.int64(0)
    while start < length:
        at = start
        for block in range(width >> 2):
            at = start
            channel = np.int64(block << 2)
            point = np.int64(chains[at]) * width + channel
            b0, b1, b2, b3 = ZERO, ZERO, ZERO, ZERO
            h0, h1, h2, h3 = _load(values, point)
            last: Any = False
            while not last:
                at += 1
                following = np.int64(chains[at])
                last = following < 0
                if last:
                    following = ~following
                following = following * width + channel
                a0, a1, a2, a3 = _load(values, following)
                values[point] = h0 + HALF * (b0 + a0)
                values[point + 1] = h1 + HALF * (b1 + a1)
                values[point + 2] = h2 + HALF * (b2 + a2)
                values[point + 3] = h3 + HALF * (b3 + a3)
                b0, b1, b2, b3 = h0, h1, h2, h3
                h0, h1, h2, h3 = a0, a1, a2, a3
                point = following
            values[point] = h0 + HALF * b0
            values[point + 1] = h1 + HALF * b1
            values[point + 2] = h2 + HALF * b2
            values[point + 3] = h3 + HALF * b3
        start = at + 1


@_inlined
def _load(values: Pointer, at: Count) -> tuple[Value, Value, Value, Value]:
    return values[at], values[at + 1], values[at + 2], values[at + 3]


def _splat_one(
    pixels: Count,
    corners: Count,
    offsets: Pointer,
    weights: Pointer,
    values: Pointer,
) -> None:
    """Give every point the weights [N, d + 1] of its pixels."""
    for at in range(pixels * corners):
        values[offsets[at]] += weights[at]


def _slice_one(
    pixels: Count,
    corners: Count,
    offsets: Pointer,
    weights: Pointer,
    values: Pointer,
    found: Pointer,
) -> None:
    """Collect at every pixel what its points have; ``found`` is [N]."""
    for pixel in range(pixels):
        found[pixel] = _collect_one(pixel, corners, offsets, weights, values)


@_inlined
def _collect_one(
    pixel: Count,
    corners: Count,
    offsets: Pointer,
    weights: Pointer,
    values: Pointer,
) -> Value:
    total = ZERO
    for at in range(pixel * corners, (pixel + 1) * corners):
        total += weights[at] * values[offsets[at]]
    return total


@_inlined
def _scatter_one(
    pixel: Count,
    corners: Count,
    offsets: Pointer,
    weights: Pointer,
    values: Pointer,
    q: Value,
) -> None:
    for at in range(pixel * corners, (pixel + 1) * corners):
        values[offsets[at]] += weights[at] * q


@_inlined
def _collect(
    pixel: Count,
    corners: Count,
    offsets: Pointer,
    weights: Pointer,
    values: Pointer,
    width: Count,
    channel: Count,
) -> tuple[Value, Value, Value, Value]:
    t0, t1, t2, t3 = ZERO, ZERO, ZERO, ZERO
    for at in range(pixel * corners, (pixel + 1) * corners):
        weight = weights[at]
        v0, v1, v2, v3 = _load(values, np.int64(offsets[at]) * width + channel)
        t0 += weight * v0
        t1 += weight * v1
        t2 += weight * v2
        t3 += weight * v3
    return t0, t1, t2, t3


@_inlined
def _scatter(
    pixel: Count,
    corners: Count,
    offsets: Pointer,
    weights: Pointer,
    values: Pointer,
    width: Count,
    channel: Count,
    q: tuple[Value, Value, Value, Value],
) -> None:
    for at in range(pixel * corners, (pixel + 1) * corners):
        weight = weights[at]
        point = np.int64(offsets[at]) * width + channel
        v0, v1, v2, v3 = _load(values, point)
        values[point] = v0 + weight * q[0]
        values[point + 1] = v1 + weight * q[1]
        values[point + 2] = v2 + weight * q[2]
        values[point + 3] = v3 + weight * q[3]


@_inlined
def _exp(value: Value) -> Value:
    """Return e^value for a value <= 0, with an error of a few units in the last place."""
    bounded = max(value, LEAST_EXPONENT)
    power = np.rint(bounded * PER_LN2)
    rest = bounded - power * LN2_HIGH - power * LN2_LOW
    series = np.float32(1 / 5040)
    series = series * rest + np.float32(1 / 720)
    series = series * rest + np.float32(1 / 120)
    series = series * rest + np.float32(1 / 24)
    series = series * rest + np.float32(1 / 6)
    series = series * rest + HALF
    series = series * rest + ONE
    series = series * rest + ONE
    # 2^power, put together from the bits of its exponent
    scale = np.int32((np.int32(power) + np.int32(127)) << np.int32(23)).view(np.float32)
    return series * scale if value > LEAST_EXPONENT else ZERO


def _step_two(
    pixels: Count,
    logits: Pointer,
    constant: Pointer,
    a_scale: Value,
    a_offsets: Pointer,
    a_weights: Pointer,
    a_values: Pointer,
    a_next: Pointer,
    s_scale: Value,
    s_offsets: Pointer,
    s_weights: Pointer,
    s_values: Pointer,
    s_next: Pointer,
    first: bool,
    last: bool,
    marginals: Pointer,
) -> None:
    """Do as ``_step`` for two labels, whose logits and values have a single channel."""
    for pixel in range(pixels):
        logit = logits[pixel]
        if not first:
            message = a_scale * _collect_one(pixel, 6, a_offsets, a_weights, a_values)
            message += s_scale * _collect_one(pixel, 3, s_offsets, s_weights, s_values)
            logit += message + message - constant[pixel]
        less = _exp(-abs(logit))
        q = ONE / (ONE + less)
        p = less * q
        if logit < 0:
            p, q = q, p
        if last:
            marginals[pixel] = p
            marginals[pixels + pixel] = q
        else:
            _scatter_one(pixel, 6, a_offsets, a_weights, a_next, q)
            _scatter_one(pixel, 3, s_offsets, s_weights, s_next, q)


def _step(
    pixels: Count,
    labels: Count,
    width: Count,
    logits: Pointer,
    constant: Pointer,
    a_scale: Value,
    a_offsets: Pointer,
    a_weights: Pointer,
    a_values: Pointer,
    a_next: Pointer,
    s_scale: Value,
    s_offsets: Pointer,
    s_weights: Pointer,
    s_values: Pointer,
    s_next: Pointer,
    first: bool,
    last: bool,
    marginals: Pointer,
    row: Pointer,
) -> None:
    """Collect blurred marginals, normalise, and splat the new ones, pixel by pixel.

    The kernels are linear and the marginals of a pixel add up to 1. So the messages of all labels
    add up to ``constant``, and label 0 is never filtered: its logit is 0, and the others are
    relative to it.

    Arguments:
        pixels: N.
        labels: L.
        width: channels, L - 1 and what fills them up to a multiple of four.
        logits: [N, width], log-odds against label 0; very low in channels without a label.
        constant: [N] sum of the messages over all labels.
        a_scale: weight of the appearance term.
        a_offsets: [N, 6] its points.
        a_weights: [N, 6].
        a_values: [M, width] blurred.
        a_next: [M, width] zeros, to splat into.
        s_scale: weight of the smoothness term.
        s_offsets: [N, 3] its points.
        s_weights: [N, 3].
        s_values: [M', width] blurred.
        s_next: [M', width] zeros, to splat into.
        first: there are no messages yet.
        last: nothing is splatted any more.
        marginals: [L, N], written in the last step.
        row: [width] scratch.
    """
    for pixel in range(pixels):
        shift = ZERO
        if not first:
            shift = -constant[pixel]
        for block in range(width >> 2):
            channel = np.int64(block << 2)
            l0, l1, l2, l3 = _load(logits, pixel * width + channel)
            if not first:
                a = _collect(pixel, 6, a_offsets, a_weights, a_values, width, channel)
                s = _collect(pixel, 3, s_offsets, s_weights, s_values, width, channel)
                m0 = a_scale * a[0] + s_scale * s[0]
                m1 = a_scale * a[1] + s_scale * s[1]
                m2 = a_scale * a[2] + s_scale * s[2]
                m3 = a_scale * a[3] + s_scale * s[3]
                l0, l1, l2, l3 = l0 + m0, l1 + m1, l2 + m2, l3 + m3
                shift += (m0 + m1) + (m2 + m3)
            _store(row, channel, l0, l1, l2, l3)
        top = ZERO
        for at in range(width):
            row[at] += shift
            top = max(top, row[at])
        zeroth = _exp(-top)
        total = zeroth
        for block in range(width >> 2):
            channel = np.int64(block << 2)
            l0, l1, l2, l3 = _load(row, channel)
            l0, l1, l2, l3 = _exp(l0 - top), _exp(l1 - top), _exp(l2 - top), _exp(l3 - top)
            _store(row, channel, l0, l1, l2, l3)
            total += (l0 + l1) + (l2 + l3)
        share = ONE / total
        if last:
            marginals[pixel] = zeroth * share
            for label in range(1, labels):
                marginals[label * pixels + pixel] = row[label - 1] * share
        else:
            for block in range(width >> 2):
                channel = np.int64(block << 2)
                l0, l1, l2, l3 = _load(row, channel)
                q = l0 * share, l1 * share, l2 * share, l3 * share
                _scatter(pixel, 6, a_offsets, a_weights, a_next, width, channel, q)
                _scatter(pixel, 3, s_offsets, s_weights, s_next, width, channel, q)


@_inlined
def _store(values: Pointer, at: Count, v0: Value, v1: Value, v2: Value, v3: Value) -> None:
    values[at] = v0
    values[at + 1] = v1
    values[at + 2] = v2
    values[at + 3] = v3


KERNELS: dict[str, Kernel] = {
    "enter": _enter,
    "simplices_2": _simplices(2),
    "simplices_5": _simplices(5),
    "chains": _chains,
    "blur_one": _blur_one,
    "blur": _blur,
    "splat_one": _splat_one,
    "slice_one": _slice_one,
    "step_two": _step_two,
    "step": _step,
}
"""What is compiled, by the names of ``compiled.SIGNATURES``."""
