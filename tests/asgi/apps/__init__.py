"""Apps that servers run as processes of their own: `tests.asgi.apps.<module>:app`."""
