"""The engine: a keyed queue, a store fed by watches, and the round observe, decide, apply."""
