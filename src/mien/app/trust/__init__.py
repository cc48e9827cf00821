"""What stands between strangers' pictures and everything else."""
