"""The command `mcip demo`: the whole method in a small world, and an index of its test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcip.reporting.report import Report

# The images have 64 pixels.
_THUMBNAILS = 64


def demo(out: Path = Path("runs/demo"), *, quick: bool = False) -> Report:
    """Run the whole method on Toyshop: mine, tune, realign, evaluate five models, report, and index the test images.

    Takes a few minutes on two cores. It resumes when it is started again. The images are indexed where the extra
    `mcip[search]` is installed.

    Args:
        out: Where every artefact, `report.json` and `report.html` go.
        quick: Run it on a few images, within a minute or two, to see that everything works; the numbers say nothing.

    Returns:
        The page with the results, `out`/report.html.

    Example:
        >>> page = mcip.demo("runs/demo")  # doctest: +SKIP
    """
    from mcip.core import optional
    from mcip.core.progress import console
    from mcip.stages.index import index
    from mcip.toyshop.method import BASE, QUICK, QUICK_RECIPE, TEST, Recipe, run

    out, world = Path(out), QUICK if quick else TEST
    page = run(world, QUICK_RECIPE if quick else Recipe(), out)
    best = page.comparison.headline_model
    if optional.installed("search"):
        table = out / "tables" / f"{world.products.name}.parquet"
        model = BASE if best in (None, "base") else out / str(best) / "model"
        db = index(str(table), str(out / "photos.lance"), model=str(model), thumbnails=_THUMBNAILS)
        console.print(f"Search its images on a page: mcip serve {db}", markup=False)
    else:
        console.print("To search its images: pip install 'mcip[search,serve]', and run it again.", markup=False)
    return page
