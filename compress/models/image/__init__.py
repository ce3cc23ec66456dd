"""Image towers: float32 (N, 3, S, S), normalised, to pooled float32 (N, width)."""
