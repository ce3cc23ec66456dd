"""Fusions: image tokens (N, T, width), text tokens (N, L, width) and mask int64 (N, L) to logits (N, answers)."""
