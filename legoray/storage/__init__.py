"""Shared storage by address: `s3://bucket/prefix` or `gs://bucket/prefix` in place of a folder.

The address holds the truth. Each node works on folders of its own disk, the *mirror*, and these
modules carry what changed between the two: `address` says which folder mirrors which address,
`remote` moves single files, `folders` moves whole folders so that nobody ever sees half of one.
"""
