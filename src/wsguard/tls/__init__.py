"""Floor 2: TLS contexts."""
