"""The contract of all stores, on a real API server: the tests of tests/contract, with the fixtures of this folder."""

from tests.contract.test_datastore import *  # noqa: F403
from tests.contract.test_datastore_faults import *  # noqa: F403
from tests.contract.test_datastore_mirror import *  # noqa: F403
from tests.contract.test_datastore_watches import *  # noqa: F403

del test_a_bookmark_says_how_far_a_watch_without_events_has_come  # noqa: F821  a server sends one a minute
