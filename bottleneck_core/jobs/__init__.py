"""Background commands whose state lives on disk: their starter may end, other processes still see them.

A job starts at once (`start_job`), or in the turn of a queue with a limit per device (`queue_job`); `queue` tells
how that works without a process that runs it. POSIX only: a job is a process group. Nothing here imports torch.
"""

from bottleneck_core.jobs.job import Job, find_jobs, job_state
from bottleneck_core.jobs.log import job_log
from bottleneck_core.jobs.queue import device_limits, move_job, queued_jobs, set_device_limit, start_now
from bottleneck_core.jobs.start import queue_job, requeue_job, start_job
from bottleneck_core.jobs.stop import LADDER, Stopped, stop_job

__all__ = [
    "LADDER",
    "Job",
    "Stopped",
    "device_limits",
    "find_jobs",
    "job_log",
    "job_state",
    "move_job",
    "queue_job",
    "queued_jobs",
    "requeue_job",
    "set_device_limit",
    "start_job",
    "start_now",
    "stop_job",
]
