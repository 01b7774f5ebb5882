"""What a trained network is good for once the workflow has ended."""
