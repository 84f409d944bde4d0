"""Tables of words that prompts are read with."""
