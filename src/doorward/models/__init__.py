"""Networks: architectures, training, and one way in for weights of any origin."""
