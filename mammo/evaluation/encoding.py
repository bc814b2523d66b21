"""Signs of a wrong encoding in the summaries of two image sets: depth, grey scale, orientation."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Row = dict[str, Any]
# A wrong mapping is believed when it explains the histogram this much better than none does,
EXPLAINS = 0.25
DIFFERS = 0.03  # and the histograms are this far apart (mean shift of grey, in [0, 1]).
# Another order of channels must fit this much better, where they are this far from their places
# (in standard deviations of an image).
ORDERED, DISPLACED = 0.33, 0.3
STRUCTURE = 0.03  # standard deviation of a mean image that shows where the tissue lies
ALIKE, UNLIKE = 0.5, 0.3  # correlation of two mean images, and how much one must beat the other
ONE_SIDED = 0.9  # share of images that are brighter on the same side
ENOUGH = 5  # images that an orientation is judged on
EIGHT_BITS = 256
COARSER = 4  # times fewer grey levels than that many real ones are a loss of depth

# What a value in [0, 1] becomes under a mapping that was forgotten or done twice
MAPPINGS: dict[str, tuple[Callable[[Floats], Floats], str]] = {
    "inverted": (lambda x: 1 - x, "the grey scale is inverted: air is bright"),
    "upper half": (lambda x: (x + 1) / 2, "values fill the upper half of the range alone"),
    "lower half": (lambda x: x / 2, "values fill the lower half of the range alone"),
    "cut half": (lambda x: np.maximum(2 * x - 1, 0), "values below the middle are cut off"),
}
TURNS: dict[str, tuple[Callable[[Floats], Floats], str]] = {
    "mirrored": (lambda x: x[..., ::-1], "the images are mirrored: the chest wall lies opposite"),
    "upside down": (lambda x: x[..., ::-1, :], "the images stand upside down"),
    "rotated": (lambda x: x[..., ::-1, ::-1], "the images are rotated by half a turn"),
    "transposed": (lambda x: np.swapaxes(x, -1, -2), "rows and columns are swapped"),
}
REMEDY = "; mend how the generator maps values to pixels"


def encoding_rows(
    real: Mapping[str, Any],
    ours: Mapping[str, Any],
    synthetic: Mapping[str, Any],
    theirs: Mapping[str, Any],
) -> list[Row]:
    """Rows of the parity table on how two sets are encoded; `ours`, `theirs` are their means."""
    rows = _form(real, synthetic)
    if real["shape"] != synthetic["shape"]:
        return rows
    rows += [_range(real, synthetic), _distinct(real, synthetic)]
    mapping, grey = _grey_scale(ours, theirs)
    rows.append(grey)
    if real["kind"] == "mask":  # a lesion may lie anywhere, and a mask has two levels
        return rows
    rows.append(_levels(real, synthetic))
    upright = dict(theirs)
    if mapping == "inverted":
        upright["layout"] = 1 - np.asarray(theirs["layout"])
    rows.append(_orientation(ours, upright, _images(synthetic)))
    if real["shape"][0] > 1:
        rows.append(_channel_order(ours, theirs))
    return rows


def _form(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> list[Row]:
    """Bits of a pixel, channels, height and width, which must be equal."""
    pairs = {"bits": tuple(8 * np.dtype(each["dtype"]).itemsize for each in (real, synthetic))}
    for place, name in enumerate(("channels", "height", "width")):
        pairs[name] = (real["shape"][place], synthetic["shape"][place])
    return [
        _row(name, *values, wrong=values[0] != values[1], note=f"the {name} differ{REMEDY}")
        for name, values in pairs.items()
    ]


def _range(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> Row:
    """The highest value, or the lowest where that lies outside [0, 1]."""
    low, high = synthetic["lowest"], synthetic["highest"]
    if not (low >= 0 and high <= 1):  # neither does nan
        which = "highest" if high > 1 else "lowest"
        note = f"values lie outside [0, 1]{REMEDY}"
        return _row(f"{which} value", real[which], synthetic[which], wrong=True, note=note)
    dark = high < 1 / 128 and real["highest"] > 1 / 8
    note = f"8-bit values lie in 16-bit pixels{REMEDY}"
    return _row("highest value", real["highest"], high, wrong=dark, note=note)


def _distinct(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> Row:
    """How many different images the class has that has fewest for its size."""
    shares = {
        name: each["distinct"] / each["images"]
        for name, each in synthetic["classes"].items()
        if each["images"] > 1
    }
    name = min(shares, key=lambda each: shares[each]) if shares else ""
    count = synthetic["classes"][name]["distinct"] if name else 1
    images = synthetic["classes"][name]["images"] if name else 1
    usual = [each["distinct"] / each["images"] for each in real["classes"].values()]
    same = count == 1 and images > 1 and min(usual) > 0.5 and real["kind"] == "image"
    note = f"all {images} images of {name} are one and the same; train the generator longer"
    return _row("distinct images", round(min(usual) * images), count, wrong=same, note=note)


def _levels(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> Row:
    """Grey levels, in powers of two: 8 where 16-bit pixels went through 8 bits."""
    there, drawn = min(real["levels"]), min(synthetic["levels"])
    pixels = _images(synthetic) * np.prod(synthetic["shape"][1:])
    coarse = (
        drawn <= EIGHT_BITS and there >= COARSER * EIGHT_BITS and pixels >= COARSER**2 * EIGHT_BITS
    )
    note = f"the images have {drawn} grey levels: they went through 8 bits{REMEDY}"
    return _row("grey levels (log2)", np.log2(there), np.log2(drawn), wrong=coarse, note=note)


def _grey_scale(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[str, Row]:
    """The wrong mapping that explains the synthetic histogram, "" for none, and its row."""
    real, drawn = (np.asarray(each["histogram"]) for each in (ours, theirs))
    centers = (np.arange(real.shape[1]) + 0.5) / real.shape[1]
    means = [float((each @ centers).mean()) for each in (real, drawn)]
    plain = _distance(real, drawn)
    found = ""
    if plain > DIFFERS and _structured(ours):
        far = {name: _distance(_mapped(real, f), drawn) for name, (f, _) in MAPPINGS.items()}
        best = min(far, key=lambda name: far[name])
        found = best if far[best] < EXPLAINS * plain and _fits(best, ours, theirs) else ""
    note = f"{MAPPINGS[found][1]}{REMEDY}" if found else ""
    return found, _row("mean of the grey scale", *means, wrong=bool(found), note=note)


def _fits(mapping: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether the tissue lies where this mapping would have it, or would in a mirror."""
    sign = -1 if mapping == "inverted" else 1
    drawn = np.asarray(theirs["layout"])
    turned = (drawn, drawn[..., ::-1])
    return max(sign * _alike(ours["layout"], each) for each in turned) > ALIKE


def _orientation(ours: Mapping[str, Any], theirs: Mapping[str, Any], images: int) -> Row:
    """Share of images that are brighter on the left, and whether a turn explains the mean image."""
    left = next(name for name in ours["mean"] if name.endswith("left_side"))
    shares = ours["mean"][left], theirs["mean"][left]
    found = ""
    if _structured(ours) and images >= ENOUGH:
        real, drawn = np.asarray(ours["layout"]), np.asarray(theirs["layout"])
        square = real.shape[-1] == real.shape[-2]
        likeness = {
            name: _alike(real, turn(drawn))
            for name, (turn, _) in TURNS.items()
            if square or name != "transposed"
        }
        best = max(likeness, key=lambda name: likeness[name])
        better = likeness[best] > max(ALIKE, _alike(real, drawn) + UNLIKE)
        sided = max(shares[0], 1 - shares[0]) >= ONE_SIDED or best in ("upside down", "transposed")
        found = best if better and sided else ""
    note = f"{TURNS[found][1]}{REMEDY}" if found else ""
    return _row("orientation (share brighter on the left)", *shares, wrong=bool(found), note=note)


def _channel_order(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Row:
    """How far the channels are from the real ones, in the order that fits best and as they come.

    In standard deviations of an image, averaged over all quantities.
    """
    channels = range(len(np.asarray(ours["histogram"])))
    far = np.array([[_apart(ours, one, theirs, other) for other in channels] for one in channels])
    orders = list(itertools.permutations(channels))
    sums = [float(np.mean([far[place, each] for place, each in enumerate(o)])) for o in orders]
    plain, best = sums[0], min(sums)
    wrong = plain > DISPLACED and best < ORDERED * plain
    order = ", ".join(str(channel + 1) for channel in orders[int(np.argmin(sums))])
    note = f"the channels come in another order: they fit as {order}{REMEDY}"
    return _row("order of the channels", best, plain, wrong=wrong, note=note)


def _apart(ours: Mapping[str, Any], one: int, theirs: Mapping[str, Any], other: int) -> float:
    """Mean difference of synthetic channel `other` from real channel `one`, over all quantities."""
    prefixes = (f"channel{one + 1}/", f"channel{other + 1}/")
    names = [
        name.removeprefix(prefixes[0]) for name in ours["mean"] if name.startswith(prefixes[0])
    ]
    gaps = []
    for name in names:
        mine, drawn = prefixes[0] + name, prefixes[1] + name
        sd = max(ours["sd"][mine], 0.01)  # of what hardly varies, a hundredth of the range
        gaps.append(min(abs(ours["mean"][mine] - theirs["mean"][drawn]) / sd, 3.0))
    return float(np.mean(gaps))


def _distance(first: Floats, second: Floats) -> float:
    """Mean shift of grey between histograms (C, bins) over [0, 1]: their Wasserstein distance."""
    gaps = np.abs(np.cumsum(first, axis=1) - np.cumsum(second, axis=1))
    return float(gaps.sum(axis=1).mean() / first.shape[1])


def _mapped(histogram: Floats, mapping: Callable[[Floats], Floats]) -> Floats:
    """The histogram (C, bins) after every value went through `mapping`."""
    bins = histogram.shape[1]
    # four values a bin, so that a mapping that stretches leaves no gaps
    values = (np.arange(4 * bins) + 0.5) / (4 * bins)
    places = np.clip((mapping(values) * bins).astype(int), 0, bins - 1)
    out = np.zeros_like(histogram)
    for channel, each in enumerate(np.repeat(histogram / 4, 4, axis=1)):
        np.add.at(out[channel], places, each)
    return out


def _structured(means: Mapping[str, Any]) -> bool:
    return float(np.std(means["layout"])) > STRUCTURE


def _alike(first: Any, second: Any) -> float:
    """Correlation of two mean images; 0 where one is flat."""
    one, other = (np.asarray(each, float).ravel() for each in (first, second))
    if min(one.std(), other.std()) < 1e-6:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _images(summary: Mapping[str, Any]) -> int:
    return sum(each["images"] for each in summary["classes"].values())


def _row(quantity: str, real: float, synthetic: float, *, wrong: bool, note: str) -> Row:
    """A row without a tolerance of its own: it is wrong or it is not."""
    return {
        "quantity": quantity,
        "real": float(real),
        "synthetic": float(synthetic),
        "difference": float(synthetic) - float(real),
        "tolerance": float("nan"),
        "verdict": "mismatch" if wrong else "ok",
        "note": note if wrong else "",
    }
