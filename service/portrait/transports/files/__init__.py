"""Files in, files out: stills and videos, folders of them, pipes, cameras and addresses."""

from portrait.transports.files.backend import Work, local_work, remote_work
from portrait.transports.files.batch import Batch, Outcome
from portrait.transports.files.jobs import Job, beside, plan
from portrait.transports.files.run_job import run
from portrait.transports.files.transcode import PIPE, Progress, without_secrets

__all__ = [
    "PIPE", "Batch", "Job", "Outcome", "Progress", "Work", "beside", "local_work", "plan", "remote_work", "run",
    "without_secrets",
]  # fmt: skip
