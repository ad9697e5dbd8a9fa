class BenchmarkError(Exception):
    """What was measured does not count: a byte, a frame or a setting was not as promised."""
