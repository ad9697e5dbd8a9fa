"""The ASGI mount: values first, then real servers on real sockets."""
