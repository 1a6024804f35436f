"""What gets scheduled: one file a job, and the command line."""
