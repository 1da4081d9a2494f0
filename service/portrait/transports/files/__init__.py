"""Files in, files out: stills and videos, folders of them, pipes, cameras and addresses."""

from portrait.transports.files.batch import Batch, Outcome
from portrait.transports.files.plan import Job, beside, plan
from portrait.transports.files.single import run
from portrait.transports.files.videos import PIPE, Progress, without_secrets
from portrait.transports.files.work import Work, local_work, remote_work

__all__ = [
    "PIPE", "Batch", "Job", "Outcome", "Progress", "Work", "beside", "local_work", "plan", "remote_work", "run",
    "without_secrets",
]  # fmt: skip
