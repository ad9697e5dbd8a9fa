"""Floor 1: from a Handshake to a Decision. No socket, no loop, no clock, no randomness: they are passed in."""
