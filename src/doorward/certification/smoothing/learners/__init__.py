"""What is trained on every noisy copy: one learner = one file = one function of a block of trials.

A learner is a plain function ``(block: NoisyBlock, settings) -> uint8 [B, m]``: it trains on the noisy training sets
of the B trials of a block and predicts the noisy test images, all trials at once. Registering it with
``@method("certify", NAME, settings=..., given={"images", "labels", "noise"})`` is all there is to do; "noise" in
``given`` tells the learners from the deterministic certificates. For soundness it must look at nothing but the block:
neither the labels nor the pixels without noise, and no state that lasts from one block to the next.
"""
