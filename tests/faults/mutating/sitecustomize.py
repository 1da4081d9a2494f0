"""Python runs this at its start wherever this folder is on PYTHONPATH: `make mutants` puts it there."""

from tests.faults.mutation import install

install()
