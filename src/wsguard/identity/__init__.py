"""Floor 3: what is learnt from elsewhere, lists and identities, and the one door through which it is asked for."""
