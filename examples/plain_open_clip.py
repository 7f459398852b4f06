"""Use a tuned model in plain open_clip: the folder that mcip saved, or a state dict with `strict=True`.

    python examples/plain_open_clip.py   8 seconds of CPU time

Expected: 0.454238, the cosine that mcip gives, by open_clip too.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from PIL import Image

import mcip

OUT = Path("runs/plain-open-clip")


def main() -> None:
    """Save the toyshop model in both forms, and load them without mcip."""
    folder = mcip.export("toyshop", OUT / "model", format="open_clip")
    weights = mcip.export("toyshop", OUT / "toyshop.pth")

    clip, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    clip.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    image = Image.new("RGB", (64, 64), "crimson")
    with torch.no_grad():
        images = clip.eval().encode_image(preprocess(image)[None], normalize=True)
        texts = clip.encode_text(tokenizer(["a red square"]), normalize=True)
    print(f"open_clip: {float(images @ texts.T):.6f}")

    model = mcip.load("toyshop")
    image_vector, text_vector = model.encode([image])[0], model.encode(["a red square"])[0]
    print(f"mcip:      {float(image_vector @ text_vector):.6f}")


if __name__ == "__main__":
    main()
