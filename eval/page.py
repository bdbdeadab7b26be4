"""HTML pieces of the report: tables and pictures, everything inside the one file.

In: rows and PNG bytes. Out: HTML text. Pictures become the smaller of PNG and JPEG, and shrink
together where the page would pass its limit.
"""

import base64
import html

import cv2
import numpy as np

from eval.view import Picture

MAX_BYTES = 15_000_000  # of the page; mail and chat tools refuse more
TEXT_BYTES = 1_000_000  # kept free for the tables
JPEG_QUALITY = 85
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em;
       color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; } th { background: #f4f4f4; }
.wide { overflow-x: auto; } img { max-width: 100%; } .note { color: #555; font-size: 90%; }
.upright th:not(:first-child) span { writing-mode: vertical-rl; transform: rotate(180deg);
       white-space: nowrap; }
tr.published td { color: #666; font-style: italic; background: #fafafa; }
.dense { font-size: 85%; } .dense th, .dense td { padding: .25em .5em; }
.words td:not(.number) { text-align: left; } .words th { text-align: left; }
nav a { margin-right: 1.2em; white-space: nowrap; } summary { cursor: pointer; color: #444; }
.origin td { text-align: left; font-size: 85%; word-break: break-all; }
figure { margin: 1em 0; } .pairs figure { display: inline-block; width: 49%; }
td.number { white-space: nowrap; }
"""


def table(
    head: list[str], rows: list[list[str]], kind: str = "", published: tuple[int, ...] = ()
) -> str:
    """Return a table; rows whose numbers are in `published` are set apart."""
    cells = "".join(f"<th><span>{html.escape(cell)}</span></th>" for cell in head)
    lines = [f"<tr>{cells}</tr>"]
    for number, row in enumerate(rows):
        cells = "".join(_cell(text) for text in row)
        lines.append(
            f"<tr class=published>{cells}</tr>" if number in published else f"<tr>{cells}</tr>"
        )
    return f"<div class=wide><table class='{kind}'>{''.join(lines)}</table></div>"


def _cell(text: str) -> str:
    is_number = "\u00b1" in text  # must not break between mean and deviation
    return f"<td{' class=number' if is_number else ''}>{html.escape(text)}</td>"


def sections(parts: dict[str, list[str]]) -> list[str]:
    """Return headed sections, and before them a line of links to each."""
    links = [f"<a href='#{_anchor(title)}'>{html.escape(title)}</a> " for title in parts]
    body = [f"<nav>{''.join(links)}</nav>"]
    for title, content in parts.items():
        body += [f"<h2 id='{_anchor(title)}'>{html.escape(title)}</h2>", *content]
    return body


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def note(text: str) -> str:
    """Return a paragraph in small print."""
    return f"<p class=note>{html.escape(text)}</p>"


def images(pictures: list[Picture], otherwise: str) -> list[str]:
    """Return figures, or a sentence where there is none."""
    if not pictures:
        return [f"<p>{html.escape(otherwise)}</p>"] if otherwise else []
    figures = []
    for picture in pictures:
        kind = "png" if picture.png.startswith(b"\x89PNG") else "jpeg"
        data, caption = base64.b64encode(picture.png).decode(), html.escape(picture.title)
        figures.append(
            f"<figure><img alt='{caption}' src='data:image/{kind};base64,{data}'>"
            f"<figcaption class=note>{caption}</figcaption></figure>"
        )
    return figures


def fit(groups: list[list[Picture]], max_bytes: int = MAX_BYTES) -> list[list[Picture]]:
    """Return the pictures, small enough for one page.

    Each becomes the smaller of its PNG and a JPEG; as long as all of them together are too large,
    every side of every picture is cut to 70 percent.
    """
    limit = (max_bytes - TEXT_BYTES) * 3 // 4  # base64 adds a third
    scale = 1.0
    while True:
        done = [[_smaller(picture, scale) for picture in group] for group in groups]
        if sum(len(p.png) for group in done for p in group) <= limit or scale < 0.1:
            return done
        scale *= 0.7


def document(title: str, parts: list[str]) -> str:
    """Return the whole page."""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>"
        f"<body>{''.join(parts)}</body></html>"
    )


def _smaller(picture: Picture, scale: float) -> Picture:
    image = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_COLOR)
    if image is None:  # not a picture that can be packed tighter
        return picture
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    png = picture.png if scale == 1 else cv2.imencode(".png", image)[1].tobytes()
    return Picture(picture.title, min(png, jpeg, key=len))
