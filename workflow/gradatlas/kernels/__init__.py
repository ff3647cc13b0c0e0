"""Inner products of gradients between samples, and single steps against their prediction."""
