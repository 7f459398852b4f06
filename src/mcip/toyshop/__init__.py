"""Toyshop: a small generated world of product images in which the method can be seen at work."""
