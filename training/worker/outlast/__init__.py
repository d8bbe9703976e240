"""What training code sees of Outlast.

In a ``%%train`` cell ``job`` is defined; a script says ``job = outlast.job()``.
Outside a run that gives a stand-alone job, so that the script works unchanged.
"""

from ._job import Job
from ._start import job

__all__ = ["Job", "job"]
