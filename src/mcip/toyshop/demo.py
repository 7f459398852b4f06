"""The command `mcip demo`: the whole method in a small world, and an index of its test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mcip.core.errors import ConfigError
from mcip.core.processes import check_one_process

if TYPE_CHECKING:
    from mcip.reporting.report import Report

# The images have 64 pixels.
_THUMBNAILS = 64


def demo(out: Path = Path("runs/demo"), *, full: bool = False, quick: bool = False) -> Report:
    """Run the whole method on Toyshop: mine, adapt, tune, realign, evaluate, report, and index the test images.

    Takes about three minutes on two cores. It resumes when it is started again. The images are indexed where the extra
    `mcip[search]` is installed.

    Args:
        out: Where every artefact, `report.json` and `report.html` go.
        full: Three times the images, and tuning for as long as it gains something, which takes about ten minutes;
            everything goes to the folder `full` in `out`.
        quick: A few images and steps, within a minute or two, to see that everything works: the numbers say nothing.
            Everything goes to the folder `quick` in `out`.

    Returns:
        The page with the results, `out`/report.html.

    Example:
        >>> page = mcip.demo("runs/demo")  # doctest: +SKIP

    Raises:
        ConfigError: It shall be both full and quick.
    """
    check_one_process()
    from dataclasses import replace

    from mcip.core import optional
    from mcip.stages.index import index
    from mcip.toyshop import method
    from mcip.toyshop.method import BASE, Recipe

    if full and quick:
        raise ConfigError("The demo is full or quick: leave --full or --quick out.")
    out = Path(out) / ("full" if full else "quick" if quick else "")
    world, recipe = method.TEST, Recipe()
    if full or quick:
        world = method.FULL_TEST if full else method.QUICK_TEST
        recipe = method.FULL_RECIPE if full else method.QUICK_RECIPE
    page = method.run(world, recipe, out)
    if optional.installed("search"):
        best = page.comparison.headline_model
        model = BASE if best is None else page.comparison.result(best).source
        table = out / "tables" / world.products.file
        db = index(str(table), str(out / "photos.lance"), model=model, thumbnails=_THUMBNAILS)
        note = f"Search the test images on a page: mcip serve {db}"
    else:
        note = "To search the test images: pip install 'mcip[search,serve]', and run it again."
    return replace(page, notes=[*page.notes, note])
