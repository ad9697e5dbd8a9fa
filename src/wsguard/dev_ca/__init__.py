"""Floor 6: the development certificate authority."""

from wsguard.dev_ca.authority import DevelopmentAuthority, Leaf, inside_constraints

__all__ = ["DevelopmentAuthority", "Leaf", "inside_constraints"]
