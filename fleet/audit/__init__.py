"""What only shows when the results of a batch are looked at together: shared trajectories, drifted code, lost tasks, outliers.

Nothing here changes the verdict on a single result.
"""
