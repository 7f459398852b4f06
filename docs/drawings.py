"""Draw the method, and the stages with their artefacts: `make drawings` writes both to docs/images as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree as Xml

IMAGES: Final = Path(__file__).parent / "images"
Kind = Literal["data", "stage", "trained", "locked", "title"]
# Fill and border of each kind of box.
_COLOURS: Final[dict[Kind, tuple[str, str]]] = {
    "data": ("#ffffff", "#8a94a6"),
    "stage": ("#dbe7fb", "#2f5fae"),
    "trained": ("#fde2c8", "#c2640c"),
    "locked": ("#e6e8ec", "#6b7280"),
    "title": ("none", "none"),
}
_STYLE: Final = (
    "text{font-family:system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif;font-size:13px;"
    "fill:#1f2937;text-anchor:middle;dominant-baseline:central}.title{font-size:15px;font-weight:600}"
)
_ROW: Final = 17


@dataclass(frozen=True)
class Box:
    """A box around lines of text.

    Attributes:
        x: Of the middle, in pixels.
        y: Of the middle.
        text: The lines.
        kind: What it stands for; tables and artefacts are "data".
        width: In pixels.
    """

    x: float
    y: float
    text: str
    kind: Kind = "data"
    width: float = 120

    @property
    def height(self) -> float:
        """In pixels."""
        return 20 + _ROW * (self.text.count("\n") + 1)

    def draw(self, parent: Xml.Element) -> None:
        """Add it to a drawing."""
        fill, stroke = _COLOURS[self.kind]
        place = {"x": self.x - self.width / 2, "y": self.y - self.height / 2, "width": self.width}
        radius = 4 if self.kind == "data" else 14
        _add(parent, "rect", **place, height=self.height, rx=radius, fill=fill, stroke=stroke)
        lines = self.text.split("\n")
        for number, line in enumerate(lines):
            y = self.y + _ROW * (number - (len(lines) - 1) / 2)
            _add(parent, "text", x=self.x, y=y, **({"class": "title"} if self.kind == "title" else {})).text = line

    def edge(self, towards: Box) -> tuple[float, float]:
        """Where the line from its middle to that of another box leaves it."""
        across, down = towards.x - self.x, towards.y - self.y
        reach = min(
            (self.width / 2 + 3) / abs(across) if across else 1.0, (self.height / 2 + 3) / abs(down) if down else 1.0
        )
        return self.x + reach * across, self.y + reach * down


def method() -> str:
    """The three trainings: which data, which losses, which tower is trained and which is locked."""
    boxes: list[Box] = []
    arrows: list[tuple[Box, Box]] = []
    image, label = ("images", "image tower"), ("labels", "class centers")
    losses = ("ArcMargin\non labels", "ArcMargin on labels\n+ Multi-Caption-\nArcMargin", "InfoNCE")
    panels: dict[str, dict[tuple[str, str], Kind]] = {
        "GPR-FT": {image: "trained", label: "trained"},
        "MCIP": {image: "trained", label: "trained", ("mined\ncaptions", "text tower"): "locked"},
        "Re-A": {image: "locked", ("captions", "text tower"): "trained"},
    }
    for number, ((name, inputs), loss) in enumerate(zip(panels.items(), losses, strict=True)):
        left = 330 * number
        boxes.append(Box(left + 165, 26, name, "title"))
        end = Box(left + 165, 270, loss, "stage", 150)
        boxes.append(end)
        for place, ((data, part), kind) in enumerate(inputs.items()):
            x = left + 165 + 104 * (place - (len(inputs) - 1) / 2)
            source, tower = Box(x, 90, data, width=86), Box(x, 172, part, kind, 96)
            boxes += [source, tower]
            arrows += [(source, tower), (tower, end)]
    boxes += [Box(410, 345, "trained", "trained", 90), Box(510, 345, "locked", "locked", 90)]
    boxes.append(Box(610, 345, "loss", "stage", 90))
    return svg(990, 375, boxes, arrows)


def stages() -> str:
    """Which stage reads and writes which artefact."""
    labelled, pool = Box(75, 40, "images\nwith labels"), Box(75, 140, "pool\nof captions")
    base, mine = Box(75, 240, "base model"), Box(235, 140, "mine", "stage", 90)
    captions, tune = Box(385, 140, "captions"), Box(540, 140, "tune", "stage", 90)
    model, pairs = Box(690, 140, "model"), Box(540, 240, "captioned\nimages", width=100)
    align = Box(690, 240, "align · adapt\nisoclip · interpolate", "stage", 150)
    evaluate, results = Box(850, 50, "evaluate", "stage", 90), Box(1000, 50, "results")
    report, page = Box(1150, 50, "report", "stage", 90), Box(1300, 50, "tables, plots,\na page")
    index, table = Box(850, 140, "index", "stage", 90), Box(1000, 140, "index\n(Lance table)")
    search = Box(1150, 140, "search · serve\nmcp · duplicates", "stage", 126)
    hits = Box(1300, 140, "hits, a page,\nan API")
    export = Box(850, 240, "export · push", "stage", 110)
    others = Box(1000, 240, "open_clip, ONNX,\ntransformers, hub", width=136)
    arrows = [
        (labelled, mine), (pool, mine), (base, mine), (mine, captions), (captions, tune), (labelled, tune),
        (base, tune), (tune, model), (model, align), (align, model), (pairs, align), (model, evaluate),
        (evaluate, results), (results, report), (report, page), (model, index), (index, table), (table, search),
        (search, hits), (model, export), (export, others),
    ]  # fmt: skip
    return svg(1375, 285, list(dict.fromkeys(box for arrow in arrows for box in arrow)), arrows)


def svg(width: int, height: int, boxes: Sequence[Box], arrows: Sequence[tuple[Box, Box]]) -> str:
    """A drawing on white paper, which is readable on a dark page too."""
    root = Xml.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}")
    _add(root, "style").text = _STYLE
    head = _add(
        _add(root, "defs"), "marker", id="head", viewBox="0 0 8 8", refX=7, refY=4, markerWidth=7, markerHeight=7
    )
    head.set("orient", "auto")
    _add(head, "path", d="M0 0L8 4L0 8z", fill="#4b5563")
    _add(root, "rect", width=width, height=height, rx=8, fill="#f8fafc")
    for start, end in arrows:
        (x1, y1), (x2, y2) = start.edge(end), end.edge(start)
        line = _add(root, "line", x1=x1, y1=y1, x2=x2, y2=y2, stroke="#4b5563")
        line.set("stroke-width", "1.4")
        line.set("marker-end", "url(#head)")
    for box in boxes:
        box.draw(root)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode") + "\n"


def _add(parent: Xml.Element, tag: str, **attributes: float | str) -> Xml.Element:
    values = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in attributes.items()}
    return Xml.SubElement(parent, tag, values)


DRAWINGS: Final = {"method.svg": method, "stages.svg": stages}


def main() -> None:
    """Write all drawings."""
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
