"""Answers in, scores out: plain functions, per sample and in total."""
