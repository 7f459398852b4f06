"""Bridges to other people's programs; each is imported by itself and needs the program that it serves."""
