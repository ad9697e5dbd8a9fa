"""Authenticators, one file each: a credential becomes an Identity, or is "not mine", or is refused."""
