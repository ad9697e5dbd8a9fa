"""Signed tokens, judged without a network: the compact form (RFC 7515), keys (RFC 7517) and claims (RFC 7519, 9068)."""
