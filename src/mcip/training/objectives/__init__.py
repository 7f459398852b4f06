"""What is trained: objectives for the training loop, each of use with a loss or a loop of one's own."""

from mcip.training.objectives.contrastive import ContrastivePretraining
from mcip.training.objectives.image_tuning import CaptionTerm, ImageTuning
from mcip.training.objectives.linear_adapter import LinearAdapter
from mcip.training.objectives.text_alignment import TextAlignment

__all__ = ["CaptionTerm", "ContrastivePretraining", "ImageTuning", "LinearAdapter", "TextAlignment"]
