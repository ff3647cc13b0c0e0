"""What all charts share: theme, panels, labels, saving."""
