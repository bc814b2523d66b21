"""The figure of a parity check: power spectra and grey levels of real and synthetic images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mammo.evaluation.palette import BLUE, GREY
from mammo.evaluation.parity import weighted
from mammo.evaluation.summary import band_centers


def parity_figure(real: Mapping[str, Any], synthetic: Mapping[str, Any]) -> Figure:
    """A row for each channel of two summaries of the same shape, the real one in grey.

    The band about the real spectrum is the standard deviation over images.
    """
    channels = real["shape"][0]
    roomy = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(9.2, 3.4 * channels), layout=roomy, facecolor="white")
    cells: Any = figure.subplots(channels, 2, squeeze=False)
    ours, theirs = weighted(real, synthetic), weighted(synthetic, synthetic)
    for channel, (left, right) in enumerate(cells):
        prefix = f"channel{channel + 1}/" if channels > 1 else ""
        _spectra(left, prefix, real["shape"], ours, theirs)
        _histograms(right, channel, ours, theirs)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#e5e7eb", lw=0.8)
            axes.set_axisbelow(True)
            if channels > 1:
                axes.set_title(f"channel {channel + 1}", fontsize=10)
    cells[0, 0].legend(loc="upper right", frameon=False)
    return figure


def _spectra(
    axes: Axes, prefix: str, shape: list[int], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    names = [name for name in ours["mean"] if name.startswith(f"{prefix}spectrum_")]
    # a summary that was read from model.json has its quantities by name, 10 before 2
    names.sort(key=lambda name: int(name.rpartition("_")[2]))
    frequency = band_centers(*shape[1:])
    middle, spread, drawn = (
        np.array([side[key][name] for name in names])
        for side, key in ((ours, "mean"), (ours, "sd"), (theirs, "mean"))
    )
    axes.fill_between(frequency, middle - spread, middle + spread, color=GREY, alpha=0.2, lw=0)
    axes.plot(frequency, middle, color=GREY, lw=2, label="real")
    axes.plot(frequency, drawn, color=BLUE, lw=2, label="synthetic")
    axes.set(xlabel="spatial frequency (cycles a pixel)", ylabel="power (dB)", xlim=(0, None))


def _histograms(axes: Axes, channel: int, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    real, drawn = (np.asarray(side["histogram"])[channel] for side in (ours, theirs))
    edges = np.linspace(0, 1, len(real) + 1)
    axes.stairs(real, edges, fill=True, color=GREY, alpha=0.35)
    axes.stairs(drawn, edges, color=BLUE, lw=1.5)
    # air alone is half of a mammogram: on a linear scale it would be all that one sees
    axes.set(xlabel="grey level", ylabel="share of pixels", yscale="log", xlim=(0, 1))
