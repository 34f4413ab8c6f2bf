"""The vocabulary: images, triggers, classifiers, methods, runs, intervals, errors. Imports nothing above."""
