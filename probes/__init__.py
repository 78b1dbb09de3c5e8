"""Stage 3: what the learned features are worth. Imports trainer.FlowFeat and nothing else of the other stages."""
