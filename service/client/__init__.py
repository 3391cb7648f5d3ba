"""The client library, and the client of the service on this machine.

It speaks HTTP with any service. It may import the modules of `service`, but no other
sub-package, so it runs without the packages of the server.
"""
