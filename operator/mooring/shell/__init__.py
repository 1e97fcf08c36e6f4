"""The shell: kopf handlers that hand every event on, and nothing else."""
