"""The guard without a mount: what it sells, admits, renews and revokes."""
