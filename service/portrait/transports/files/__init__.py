"""Files in, files out: stills and videos, folders of them, pipes, cameras and addresses."""

from portrait.transports.files.backend import Work, local_work, remote_still, remote_work
from portrait.transports.files.batch import Batch, Outcome
from portrait.transports.files.jobs import Job, keep_recordings, passed_over, plan
from portrait.transports.files.places import PIPE, is_folder, without_secrets
from portrait.transports.files.reader import Progress
from portrait.transports.files.run_job import Done, Opening, run

__all__ = [
    "PIPE", "Batch", "Done", "Job", "Opening", "Outcome", "Progress", "Work", "is_folder", "keep_recordings",
    "local_work", "passed_over", "plan", "remote_still", "remote_work", "run", "without_secrets",
]  # fmt: skip
