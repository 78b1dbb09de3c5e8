"""Flow estimators behind one protocol, what they are worth, and how their flow looks."""
