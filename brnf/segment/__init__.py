"""From maps to masks: dense CRF, pseudo-labels, DeepLabV2 and its prediction."""
