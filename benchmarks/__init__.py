"""Benchmarks of wsguard; each is a package with one documented command."""
