"""How to choose with a model: searches that turn a model of what happens into the next actions."""
