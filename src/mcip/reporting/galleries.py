"""Sections of the page with pictures: neighbour grids, and mined captions."""

from __future__ import annotations

from matplotlib.figure import Figure

from mcip.reporting import plots
from mcip.reporting.grids import Grid, Neighbour, Query, Ranking
from mcip.reporting.markup import Html, join, tag
from mcip.reporting.mined import Example, Mined
from mcip.reporting.rankings import Outcome

_SIGNS: dict[Outcome, str] = {"hit": "✓ hit", "miss": "✗ miss", "itself": "= itself", "ignored": "~ not counted"}
_REACHED = {True: "{} reached", False: "{} missed"}
_COLUMNS = 10
_CAPTIONS = 5


def themed(light: Figure, dark: Figure, alt: str) -> Html:
    """A plot that is shown as the page's mode asks for."""
    return tag(
        "picture",
        tag("source", srcset=plots.data_uri(dark), media="(prefers-color-scheme: dark)"),
        tag("img", src=plots.data_uri(light), alt=alt),
    )


def grid_section(grid: Grid) -> Html:
    """A task's neighbour grid."""
    unchanged = grid.total - grid.better - grid.worse
    moved = (
        f"With {grid.after}, {grid.better:,} of {grid.total:,} queries have a higher {_spelt(grid.metric)} than with "
        f"{grid.before}, {grid.worse:,} a lower one, {unchanged:,} the same."
    )
    shown = (
        f"Below are the {len(grid.queries)} that changed most, in either direction, of as many classes as possible: "
        f"the nearest images by {grid.before} in the first row, by {grid.after} in the second."
    )
    legend = tag(
        "p",
        tag("span", tag("span", "✓ hit", class_="key hit"), "relevant to the query"),
        tag("span", tag("span", "✗ miss", class_="key miss"), "not relevant"),
        class_="legend",
    )
    told = [tag("p", shown), legend] if grid.queries else [tag("p", "No query changed.")]
    title = tag("h2", f"Before and after: {grid.task}")
    return tag("section", title, tag("p", moved), told, [_query(query, grid.metric) for query in grid.queries])


def _spelt(metric: str) -> str:
    return metric.replace("AP", "average precision (AP)", 1) if metric.startswith("AP") else metric


def _query(query: Query, metric: str) -> Html:
    if query.is_text:
        asked = tag("blockquote", query.text, class_="asked")
    else:
        about = tag("figcaption", tag("strong", "query"), tag("span", query.text, title=f"id {query.id}"))
        asked = tag("figure", _picture(query.picture, f"Query of class {query.text}"), about, class_="asked")
    rankings = [_ranking(ranking, metric) for ranking in (query.before, query.after)]
    return tag("article", asked, tag("div", rankings), class_="query")


def _ranking(ranking: Ranking, metric: str) -> Html:
    shown = len(ranking.neighbours)
    # One query has a whole average precision, but recall at k is reached or not.
    worth = f"{metric} {ranking.score:.1f} %" if metric.startswith("AP") else _REACHED[ranking.score > 0].format(metric)
    hits = f"{ranking.hits} of {shown} {'is a hit' if ranking.hits == 1 else 'are hits'}"
    told = tag("h3", ranking.model, tag("small", f"{worth}, {hits}"))
    items = [_neighbour(rank, neighbour) for rank, neighbour in enumerate(ranking.neighbours, 1)]
    return tag("div", told, tag("ol", items, style=f"--columns:{min(shown, _COLUMNS)}"), class_="ranking")


def _neighbour(rank: int, neighbour: Neighbour) -> Html:
    sign = _SIGNS[neighbour.outcome]
    picture = _picture(neighbour.picture, f"Rank {rank}, {sign[2:]}: class {neighbour.label}")
    told = f"{neighbour.label}, cosine {neighbour.similarity:.3f}"
    return tag("li", picture, tag("span", sign, class_="sign"), class_=neighbour.outcome, title=told)


def _picture(uri: str | None, alt: str) -> Html:
    if uri is None:
        return tag("span", "picture cannot be read", class_="unreadable")
    return tag("img", src=uri, alt=alt)


def mined_section(mined: Mined) -> Html:
    """The histogram and examples of mined captions."""
    counts = mined.images_by_count
    images = sum(counts)
    mean = sum(count * number for count, number in enumerate(counts)) / max(1, images)
    kept = "" if mined.threshold is None else f" with a cosine of at least {mined.threshold:.3f}"
    text = (
        f"{mined.miner} mined {mined.pool} for {images:,} images: {mean:.1f} captions each{kept}, "
        f"{mined.unique_captions:,} different ones. {counts[0] if counts else 0:,} images got none."
    )
    light, dark = (plots.caption_histogram(counts, theme) for theme in (plots.LIGHT, plots.DARK))
    told = ", ".join(f"{number:,} with {count}" for count, number in enumerate(counts) if number)
    figure = tag(
        "figure",
        tag("figcaption", "Captions per image"),
        themed(light, dark, f"Histogram of captions per image. Images: {told}."),
    )
    order = (
        "From the image with the most similar caption to the one with the least, in even steps; numbers are cosines."
    )
    note = tag("p", f"There are no examples: {mined.note}", class_="note") if mined.note else tag("p", order)
    examples = tag("div", [_example(example) for example in mined.examples], class_="examples")
    plot = tag("div", figure, class_="plots single")
    return tag("section", tag("h2", "Mined captions"), tag("p", text), plot, note, examples)


def _example(example: Example) -> Html:
    first, rest = example.captions[:_CAPTIONS], example.captions[_CAPTIONS:]
    more = tag("details", tag("summary", f"{len(rest)} more"), _captions(rest)) if rest else None
    listed = join(_captions(first), more) if first else tag("p", "no caption above the threshold", class_="caption")
    return tag("article", _picture(example.picture, f"Image {example.id}"), tag("div", listed), class_="example")


def _captions(captions: list[tuple[str, float]]) -> Html:
    return tag("ul", [tag("li", tag("small", f"{cosine:.2f}"), " ", text) for text, cosine in captions])
