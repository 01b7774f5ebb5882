"""What a run will need: disk, hours, memory."""
