"""What every training and every process shares: steps, checkpoints, devices, memory."""
