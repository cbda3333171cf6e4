"""Making an adapter on a frozen backbone: training examples, methods, losses, and one resumable loop."""
