"""The vectors of an index in Milvus, a distributed engine: for more images than one machine serves.

The Lance table stays the truth. A collection holds each row's id, vector and the columns that a filter may use, and its
properties say which version of the table they are of.
"""
