"""Distorted versions of clean images."""
