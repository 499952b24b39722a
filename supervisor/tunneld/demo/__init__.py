"""What `tunneld demo` is made of: a relay, a host and a person on this machine alone, and a link that can be cut."""
