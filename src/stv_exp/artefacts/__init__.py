"""The nouns that stages hand to each other: frozen dataclasses that save themselves as safetensors + JSON."""
