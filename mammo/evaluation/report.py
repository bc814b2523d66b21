"""The report of an evaluation: one HTML file that needs nothing else, now or in ten years."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Tile:
    """One headline number: what it is, its value as text, and how sure it is."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with a paragraph, tables under their captions, and figures under theirs."""

    title: str
    text: str = ""
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """What the report says, as plain text: everything is escaped when it is rendered."""

    title: str
    subtitle: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    provenance: Mapping[str, str]


def render(report: Report) -> str:
    """The whole page; pictures and style are inside, nothing is fetched."""
    tiles = "".join(map(_tile, report.tiles))
    sections = "".join(map(_section, report.sections))
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in report.provenance.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<header><h1>{escape(report.title)}</h1><p>{escape(report.subtitle)}</p></header>"
        f'<div class="tiles">{tiles}</div>{sections}'
        f'<section><h2>Where this comes from</h2><div class="wide"><table class="facts">{rows}'
        "</table></div></section></main></body></html>\n"
    )


def png(figure: Figure, dpi: int = 120) -> bytes:
    """`figure` as the bytes of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()


def _tile(tile: Tile) -> str:
    return (
        f'<div class="tile"><span>{escape(tile.name)}</span><strong>{escape(tile.value)}</strong>'
        f"<small>{escape(tile.note)}</small></div>"
    )


def _section(section: Section) -> str:
    warnings = "".join(f'<p class="warning">{escape(each)}</p>' for each in section.warnings)
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    tables = "".join(
        f"<h3>{escape(caption)}</h3>{_table(frame)}" for caption, frame in section.tables.items()
    )
    figures = "".join(
        f"<figure{_breadth(figure)}>{_picture(figure, caption)}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, figure in section.figures.items()
    )
    shown = f'<div class="figures">{figures}</div>' if figures else ""
    return f"<section><h2>{escape(section.title)}</h2>{text}{warnings}{shown}{tables}</section>"


def _breadth(figure: Figure) -> str:
    """A figure much wider than high takes the whole width of the page."""
    width, height = figure.get_size_inches()
    return ' class="broad"' if width > 1.8 * height else ""


def _picture(figure: Figure, caption: str) -> str:
    content = base64.b64encode(png(figure)).decode()
    return f'<img alt="{escape(caption, quote=True)}" src="data:image/png;base64,{content}">'


def _table(frame: pd.DataFrame) -> str:
    head = "".join(f"<th>{escape(str(name))}</th>" for name in frame)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_told(value))}</td>" for value in row) + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _told(value: object) -> str:
    """A cell's text: numbers to four significant digits, whole ones whole."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:.0f}" if value.is_integer() and abs(value) >= 1 else f"{value:.4g}"
    return str(value)


_STYLE = """
:root{color-scheme:light dark;--ink:#111827;--soft:#5b6472;--paper:#fff;--card:#f4f5f7;
--line:#dfe3e8;--warn:#8a4b08;--warn-card:#fff4e0}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa3af;--paper:#14171b;
--card:#1e2329;--line:#333a43;--warn:#ffcf8a;--warn-card:#33260f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.2rem;margin:2.4rem 0 .5rem;padding-top:1.2rem;border-top:1px solid var(--line)}
h3{font-size:.95rem;margin:1.4rem 0 .4rem}
header p{margin:0;color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:.8rem;
margin:1.5rem 0}
.tile{background:var(--card);border-radius:10px;padding:.9rem 1rem;display:flex;
flex-direction:column}
.tile span,.tile small{color:var(--soft);font-size:.85rem}
.tile strong{font-size:1.65rem;font-variant-numeric:tabular-nums;line-height:1.3}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(430px,100%),1fr));gap:1rem;
align-items:start}
figure{margin:0;background:#fff;border:1px solid var(--line);border-radius:10px;padding:.6rem;
text-align:center}
.broad{grid-column:1/-1}
figure img{max-width:100%;height:auto}
figcaption{color:#5b6472;font-size:.85rem;padding-top:.3rem}
.warning{background:var(--warn-card);color:var(--warn);border-radius:8px;padding:.5rem .8rem;
margin:.5rem 0}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
th{font-weight:600}
.facts th{color:var(--soft);font-weight:500;white-space:nowrap}
.facts td{overflow-wrap:anywhere}
"""
