"""The queue of jobs, what may be asked of it, and the workers that do it."""
