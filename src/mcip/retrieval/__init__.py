"""An index of images: built, kept up to date, searched."""
