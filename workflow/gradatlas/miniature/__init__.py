"""The miniature models: tokenizer, training, and what they can do."""
