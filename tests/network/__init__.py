"""Networks of the kernel's own: namespaces, the relay, a firewall, a bridge, a bad line. They need root."""
