"""Image towers: float32 (N, 3, S, S), normalised, to tokens (N, T, token_width) and pooled (N, width), float32."""
