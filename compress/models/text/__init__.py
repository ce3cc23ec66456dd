"""Text towers: int64 ids and mask (N, L) to pooled float32 (N, width)."""
