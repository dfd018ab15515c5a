"""The words of the engine: frozen types without effects, standard library only."""
