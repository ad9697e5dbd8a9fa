"""The parent of several workers, and what it reserves for them."""
