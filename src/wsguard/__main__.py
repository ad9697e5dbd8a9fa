"""``python -m wsguard`` is ``wsguard``."""

from wsguard.cli import main

if __name__ == "__main__":
    main()
