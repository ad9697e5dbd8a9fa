"""Floor 0: the words of the project, as frozen values that import nothing of ours and touch nothing outside."""
