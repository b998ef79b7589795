"""Learning runs of a minute are not a part of the suite: `make learning`."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("LEGATO_LEARNING") else ["test_logs.py", "test_mopo.py", "test_pendulum.py"]
