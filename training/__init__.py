"""What train.py and train_imagenet.py share: the loop, its state, its flags, its networks."""
