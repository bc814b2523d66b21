"""Colours of the figures: those of Okabe and Ito, told apart with colour-deficient sight."""

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
CLASSES = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#F0E442")
GREY, INK = "#6b7280", "#111827"
