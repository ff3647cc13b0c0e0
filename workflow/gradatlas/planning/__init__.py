"""What a run takes, before it starts: work, memory, disk, downloads, requests, and what will be refused."""
