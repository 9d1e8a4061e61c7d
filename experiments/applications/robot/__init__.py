"""Prediction of the next action of a robot that follows a wall."""
