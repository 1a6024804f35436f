"""What a person sees of a job: progress and tables."""
