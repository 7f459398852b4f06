"""What tasks, metrics and methods are called, and a sentence on each for readers who do not know them."""

from __future__ import annotations

from mcip.evaluation.tasks import Kind

KIND_WORDS: dict[Kind, str] = {
    "i2i": "image to image", "knn": "k-NN", "zero-shot": "zero-shot", "t2i": "text to image", "i2t": "image to text",
    "composed": "image and text to image",
}  # fmt: skip
METRIC_WORDS = {
    "map": "mAP", "map@1000": "mAP@1k", "top1": "top-1", "top5": "top-5", "r1": "R@1", "r5": "R@5", "r10": "R@10",
    "map_basic": "mAP (BASIC)",
}  # fmt: skip
PURPOSES: dict[Kind, str] = {
    "i2i": "find images by an image",
    "knn": "classify images by labelled examples",
    "zero-shot": "classify images by the names of classes alone",
    "t2i": "find images by a text",
    "i2t": "find texts by an image",
    "composed": "find images by an image and a text",
}
KIND_SENTENCES: dict[Kind, str] = {
    "i2i": "An image is the query: do other images of the same thing come first?",
    "knn": "An image gets the class of the labelled images nearest to it.",
    "zero-shot": "An image gets the class whose name, as a text, is nearest to it; no labelled image is used.",
    "t2i": "A caption is the query: is the image that it describes among the first?",
    "i2t": "An image is the query: is one of its captions among the first?",
    "composed": "An image and a text are the query: do images of the same thing, as the text has it, come first?",
}
METRIC_SENTENCES = {
    "map": "mAP, mean average precision, is 100 when every relevant image ranks before all others.",
    "map_basic": "mAP (BASIC) is mean average precision over objects, image and text joined by BASIC without query "
    "expansion.",
    "map@1000": "mAP@1k is mean average precision over the first 1,000 ranks.",
    "top1": "Top-1 is the share of images that get the right class.",
    "top5": "Top-5 is the share of images whose right class is among the first five.",
    "r1": "R@1 is the share of queries whose first result is relevant.",
    "r5": "R@5 is the share of queries with something relevant among the first five results.",
    "r10": "R@10 is the share of queries with something relevant among the first ten results.",
}
METHOD_SENTENCES = {
    "adapt": "leaves both encoders as they are and trains a matrix behind the image encoder: seconds instead of hours.",
    "GPR-FT": "tunes the image encoder to tell the classes of labelled images apart: image search improves, but texts "
    "no longer fit the images as well.",
    "Re-A": "realigns a tuned model: trains its text encoder on images with captions, while the image encoder stays as "
    "it is.",
    "2SFT": "is GPR-FT followed by Re-A: first the image encoder, then the text encoder.",
    "MCIP": "tunes the image encoder on classes and, at once, on captions mined for each image, while the text encoder "
    "stays as it is: text search keeps working. Re-A can follow.",
}


def metric_word(metric: str) -> str:
    """A metric's name for people."""
    return METRIC_WORDS.get(metric, metric)


def number(value: float | None) -> str:
    """A value as tables show it, to a tenth."""
    return "-" if value is None else f"{value:.1f}"


def signed(difference: float | None) -> str:
    """A difference with its sign, to a tenth; empty for None."""
    if difference is None:
        return ""
    return f"{difference:+.1f}" if round(difference, 1) else "+0.0"
