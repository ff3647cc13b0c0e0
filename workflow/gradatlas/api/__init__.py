"""What a Python session and a trainer call."""
