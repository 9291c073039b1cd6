//! The vfio-user protocol: codec, server, client.
