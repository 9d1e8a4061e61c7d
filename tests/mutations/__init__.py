"""Planted faults: do the tests notice them?"""
