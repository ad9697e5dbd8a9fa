"""What every test has. Fixtures of one folder stand in that folder's conftest.py."""

import hypothesis

pytest_plugins = ["tests.ci_rules", "tests.leaks"]

# A busy machine is no bug, and pytest's own timeout ends what hangs. (In CI Hypothesis's "ci" profile is underneath.)
hypothesis.settings.register_profile("wsguard", deadline=None)
hypothesis.settings.load_profile("wsguard")
