//! The user-space runtime: a device, a variant and the protocol joined.
