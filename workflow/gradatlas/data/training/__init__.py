"""Files that a trainer takes: chats, prompts with completions, texts, preference pairs."""
