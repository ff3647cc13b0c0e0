"""What the response sets really contain."""
