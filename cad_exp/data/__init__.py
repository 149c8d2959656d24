"""Prompts, requested images, noisy latents, image folders."""
