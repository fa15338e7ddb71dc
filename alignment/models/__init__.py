"""Models: their shapes, and how they are built, saved and loaded."""
