"""The KV calculator: scenarios, sizes, inverse questions."""
