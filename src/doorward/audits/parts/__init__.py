"""What the stages of an audit are made of."""
