"""The admin socket: who may use it, and what it does."""
