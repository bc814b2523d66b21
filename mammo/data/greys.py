"""The grey of every value that a DICOM file may store: modality, VOI, polarity, raw values.

All of it acts on each pixel alone, so that a table of 65536 entries stands for any picture, and
pydicom's own functions make the table.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammo.data.picture import Reading, Values
from mammo.errors import DataError

_FLAT = 99.9  # percentile of the detector's values taken for the unattenuated beam; not its maximum


def grey_scale(
    data: Any, stored: NDArray[Any], reading: Reading, *, raw: bool
) -> tuple[Values, float, float]:
    """Grey in [0, 1] by the bits of a stored value, and the values that 0 and 1 stand for.

    Those are values after the modality transform; of raw detector values, attenuations.
    """
    from pydicom.pixels import apply_modality_lut

    kind = stored.dtype
    every = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind)
    # wider than stored: pydicom indexes a table in the type of what it is given, which overflows
    values = np.asarray(apply_modality_lut(every.astype(np.int64), data), np.float64)
    low, high = _modality_range(data)
    if raw:
        return _attenuation(data, values, stored, reading, top=max(low, high))
    if reading.fixed_range:
        low, high = reading.fixed_range
        black, white = low, high
    elif reading.intensity == "header":
        values, (low, high), (black, white) = _windowed(data, values, (low, high))
    else:
        low, high = sorted((low, high))  # of a falling slope: brighter is still greater
        black, white = low, high
    greys = np.clip((values - low) / (high - low), 0.0, 1.0)
    if not (np.isfinite(greys).all() and np.isfinite([black, white]).all()):
        raise DataError("its modality or VOI transform has no finite range of greys")
    if data.PhotometricInterpretation == "MONOCHROME1":
        greys, black, white = 1.0 - greys, white, black
    return greys.astype(np.float32), float(black), float(white)


def _windowed(
    data: Any, values: NDArray[np.float64], full: tuple[float, float]
) -> tuple[NDArray[np.float64], tuple[float, float], tuple[float, float]]:
    """Values after the VOI transform, their range, and the values that its ends stand for."""
    from pydicom.pixels import apply_voi_lut

    if _has(data, "VOILUTSequence"):
        whole = np.rint(values).astype(np.int64)  # a table is indexed by whole numbers
        shown = np.asarray(apply_voi_lut(whole, data, index=0, prefer_lut=True), np.float64)
        table = data.VOILUTSequence[0]
        return shown, (0.0, float((1 << int(table.LUTDescriptor[2])) - 1)), _table_ends(table)
    if _has(data, "WindowCenter") and _has(data, "WindowWidth"):
        shown = np.asarray(apply_voi_lut(values, data, index=0, prefer_lut=True), np.float64)
        return shown, full, _window_ends(data)
    rising = (min(full), max(full))  # of a falling slope: brighter is still greater
    return values, rising, rising


def _table_ends(table: Any) -> tuple[float, float]:
    """Values of the darkest and the brightest end of a VOI table."""
    count, first, _ = (int(number) for number in table.LUTDescriptor)
    last = first + (count or 65536) - 1
    entries = table.LUTData
    rises = isinstance(entries, bytes) or entries[0] <= entries[-1]
    return (float(first), float(last)) if rises else (float(last), float(first))


def _window_ends(data: Any) -> tuple[float, float]:
    """Values that become black and white (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    A SIGMOID reaches neither; its ends are where its tangent at the center does.
    """
    center, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if str(data.get("VOILUTFunction") or "LINEAR").upper() == "LINEAR":
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return center - width / 2, center + width / 2


def _attenuation(
    data: Any,
    values: NDArray[np.float64],
    stored: NDArray[Any],
    reading: Reading,
    *,
    top: float,
) -> tuple[Values, float, float]:
    """Grey of FOR PROCESSING values: the beam's attenuation -ln(I / I0) (Beer and Lambert).

    I0 is the brightest of the detector's own values in this picture, where nothing but air lies
    before it. The scale is fixed by the depth: 1 is ln(2^bits), the most that can be told. What
    the values mean is PixelIntensityRelationship (PS3.3 C.8.11.3.1.2), LIN and rising with the
    dose when the header is silent.
    """
    if top < 1:
        raise DataError("its FOR PROCESSING values are negative; no logarithm can be taken")
    relation = str(data.get("PixelIntensityRelationship") or "LIN").upper()
    falling = int(data.get("PixelIntensityRelationshipSign") or 1) < 0
    if falling:
        values = top - values
    if relation == "LOG":  # the logarithm is taken already
        depth = top
        values = top - values
    else:
        sample = stored[::8, ::8]
        dose = values[sample.view(f"u{sample.dtype.itemsize}")]
        flat = max(float(np.percentile(dose, _FLAT)), 1.0)
        depth = float(np.log(top + 1))
        values = np.log(flat / np.maximum(values, 1.0))
    low, high = reading.fixed_range or (0.0, depth)
    greys = np.clip((values - low) / (high - low), 0.0, 1.0)
    return greys.astype(np.float32), float(low), float(high)


def _modality_range(data: Any) -> tuple[float, float]:
    """Ends of the range after the modality transform, as pydicom's windowing takes them."""
    if _has(data, "ModalityLUTSequence"):
        return 0.0, float((1 << int(data.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    bits = int(data.BitsStored)
    low, high = (
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if _signed(data) else (0, (1 << bits) - 1)
    )
    if _has(data, "RescaleSlope") and _has(data, "RescaleIntercept"):
        slope, intercept = float(data.RescaleSlope), float(data.RescaleIntercept)
        return low * slope + intercept, high * slope + intercept
    return float(low), float(high)


def _signed(data: Any) -> bool:
    return int(data.get("PixelRepresentation", 0)) == 1


def _first(value: Any) -> float:
    return float(value if isinstance(value, str) or not hasattr(value, "__len__") else value[0])


def _has(data: Any, name: str) -> bool:
    value = data.get(name)
    return value is not None and value != "" and (not hasattr(value, "__len__") or len(value) > 0)
