"""Background commands whose state lives on disk: their starter may end, other processes still see them.

POSIX only: a job is a process group. Nothing here imports torch.
"""

from bottleneck_core.jobs.job import Job, find_jobs, job_state
from bottleneck_core.jobs.start import start_job
from bottleneck_core.jobs.stop import LADDER, Stopped, stop_job

__all__ = ["LADDER", "Job", "Stopped", "find_jobs", "job_state", "start_job", "stop_job"]
