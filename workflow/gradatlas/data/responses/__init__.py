"""None, Simplified and Detailed responses, irrelevant ones, and prompts."""
