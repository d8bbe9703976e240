"""A stand-in for Google's package: on the wire it does what theirs does, and nothing else."""
